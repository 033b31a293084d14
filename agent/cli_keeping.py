"""`outpost retention`, `hold`, `pin` and `unpin`: what goes, and what must stay."""

import argparse
import json
from typing import Any

from agent import orders
from agent.cli_words import EXIT_OK, command, config_options, print_table


def add(words: Any) -> None:
    """Declare the commands."""
    retention = command(words, "retention", _retention, "what is on the disk, and what goes next")
    config_options(retention)
    retention.add_argument("--explain", action="store_true", help="in words, with the reasons")
    retention.add_argument("--json", action="store_true")
    hold = words.add_parser("hold", help="keep what was recorded of a span", description=__doc__)
    inner = hold.add_subparsers(required=True, metavar="WHAT")
    place = command(inner, "place", _place, "keep recordings and clips of a span")
    config_options(place)
    place.add_argument("--camera", required=True, metavar="NAME")
    place.add_argument(
        "--from", dest="since", required=True, metavar="T", help="2026-05-31T14:05:00, UTC; or now"
    )
    place.add_argument("--to", required=True, metavar="T", help="may lie ahead")
    _who(place)
    release = command(inner, "release", _release, "let what a hold keeps go")
    config_options(release)
    release.add_argument("id", metavar="ID")
    _who(release)
    _listing(inner)
    pin = words.add_parser("pin", help="keep a clip here, signed for or not", description=__doc__)
    inner = pin.add_subparsers(required=True, metavar="WHAT")
    _clip(inner, _pin)
    _listing(inner)
    unpin = words.add_parser("unpin", help="let a clip go where it may", description=__doc__)
    _clip(unpin.add_subparsers(required=True, metavar="WHAT"), _unpin)


def _listing(words: Any) -> None:
    listing = command(words, "list", _list, "all holds and pins")
    config_options(listing)
    listing.add_argument("--json", action="store_true")


def _clip(words: Any, does: Any) -> None:
    clip = command(words, "clip", does, "by the clip's id")
    config_options(clip)
    clip.add_argument("id", metavar="ID", help="as `outpost inspect clips` shows it")
    _who(clip)


def _who(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", required=True, metavar="TEXT", help="kept in the custody log")
    parser.add_argument("--by", required=True, metavar="NAME", help="who wants it; kept as well")


def _retention(options: argparse.Namespace) -> int:
    told = orders.retention(options.config, options.set)
    if options.json:
        print(json.dumps(told))
        return EXIT_OK
    from agent.vision import explain  # noqa: PLC0415 - only here

    if options.explain:
        for line in explain.words(told):
            print(line)
    else:
        print_table(
            [
                {
                    "what": kind["what"],
                    "count": kind["count"],
                    "size": explain.size(kind["size_bytes"]),
                }
                for kind in told["kinds"]
            ]
        )
    return EXIT_OK


def _place(options: argparse.Namespace) -> int:
    args = {
        "camera": options.camera,
        "from_utc_ms": orders.utc_ms(options.since),
        "to_utc_ms": orders.utc_ms(options.to),
        "reason": options.reason,
    }
    done = orders.order(options.config, options.set, "hold", args, options.by)
    print(f"hold {done['hold']}")
    return EXIT_OK


def _release(options: argparse.Namespace) -> int:
    _order(options, "release", "hold")
    print(f"hold {options.id} let go")
    return EXIT_OK


def _pin(options: argparse.Namespace) -> int:
    _order(options, "pin", "clip")
    print(f"clip {options.id} pinned")
    return EXIT_OK


def _unpin(options: argparse.Namespace) -> int:
    _order(options, "unpin", "clip")
    print(f"clip {options.id} unpinned")
    return EXIT_OK


def _order(options: argparse.Namespace, word: str, key: str) -> None:
    args = {key: options.id, "reason": options.reason}
    orders.order(options.config, options.set, word, args, options.by)


def _list(options: argparse.Namespace) -> int:
    told = orders.keepsakes(options.config, options.set)
    if options.json:
        print(json.dumps(told))
        return EXIT_OK
    for name, rows in told.items():
        print(f"{name}: {len(rows)}")
        print_table(rows)
    return EXIT_OK
