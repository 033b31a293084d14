"""`outpost outbox`: what is done about messages that were set aside."""

import argparse
import getpass
from typing import Any

from agent import orders
from agent.cli_words import EXIT_OK, command, config_options
from agent.core.errors import ConfigError


def add(words: Any) -> None:
    """Declare the commands."""
    outbox = words.add_parser(
        "outbox", help="retry or drop what was set aside", description=__doc__
    )
    inner = outbox.add_subparsers(required=True, metavar="WHAT")
    retry = command(inner, "retry", _retry, "send rows again: a new series of tries")
    config_options(retry)
    retry.add_argument("ids", nargs="*", type=int, metavar="ID", help="of `inspect quarantine`")
    retry.add_argument("--all", action="store_true", help="all that are set aside")
    retry.add_argument("--reason", default="", metavar="TEXT", help="kept in the custody log")
    drop = command(inner, "drop", _drop, "delete rows unsent; the centre is told")
    config_options(drop)
    drop.add_argument("ids", nargs="+", type=int, metavar="ID", help="of `inspect quarantine`")
    drop.add_argument("--reason", required=True, metavar="TEXT", help="kept in the custody log")
    drop.add_argument("--evidence", action="store_true", help="even what needs a receipt")
    for parser in (retry, drop):
        parser.add_argument("--by", default="", metavar="NAME", help="who: the user, if left out")


def _retry(options: argparse.Namespace) -> int:
    if options.all == bool(options.ids):
        raise ConfigError("outbox retry: allowed: either ids or --all")
    wanted = {"all": True} if options.all else {"ids": options.ids}
    done = _ordered(options, "outbox.retry", {**wanted, "reason": options.reason})
    left = f"; {done['left']} are still set aside" if done["left"] else ""
    print(f"{_rows(done['ids'])} will be sent again{left}")
    return EXIT_OK


def _drop(options: argparse.Namespace) -> int:
    args = {"ids": options.ids, "reason": options.reason, "evidence": options.evidence}
    done = _ordered(options, "outbox.drop", args)
    print(f"{_rows(done['ids'])} dropped")
    return EXIT_OK


def _ordered(options: argparse.Namespace, word: str, args: dict[str, Any]) -> Any:
    return orders.order(options.config, options.set, word, args, options.by or _user())


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise ConfigError("outbox: --by is missing; allowed: a name") from error


def _rows(ids: list[int]) -> str:
    if not ids:
        return "no row"
    return f"row{'s' * (len(ids) > 1)} {', '.join(map(str, ids))}"
