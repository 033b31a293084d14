"""`outpost files retry`: what the centre refused for good goes again because a person says so."""

import argparse
from typing import Any

from agent import orders
from agent.cli_words import EXIT_OK, command, config_options


def add(words: Any) -> None:
    """Declare the commands."""
    files = words.add_parser("files", help="files towards the centre", description=__doc__)
    inner = files.add_subparsers(required=True, metavar="WHAT")
    retry = command(inner, "retry", _retry, "offer a refused file again")
    config_options(retry)
    retry.add_argument("fid", metavar="FID", help="as `outpost inspect files` shows it")
    retry.add_argument("--by", required=True, metavar="NAME", help="who wants it; custody log")


def _retry(options: argparse.Namespace) -> int:
    args = {"fid": options.fid}
    done = orders.order(options.config, options.set, "files.retry", args, options.by)
    print(f"file {options.fid} ({done['name']}) is offered again")
    return EXIT_OK
