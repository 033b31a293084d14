"""`outpost retention`, `hold`, `pin`, `unpin`, `command`: what goes, and what must stay."""

import argparse
import json
from pathlib import Path
from typing import Any

from agent import orders
from agent.cli_words import EXIT_FAILED, EXIT_OK, command, config_options, print_table


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
    _span(place)
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

    order = words.add_parser("command", help="tell a device from the centre", description=__doc__)
    inner = order.add_subparsers(required=True, metavar="WHAT")
    place = command(inner, "hold", _order_hold, "keep what a device recorded of a span")
    _device(place)
    _span(place)
    _who(place)
    release = command(inner, "release", _order_release, "let a hold go")
    _device(release)
    release.add_argument("--hold", required=True, metavar="ID")
    _who(release)


def _span(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--camera", required=True, metavar="NAME")
    parser.add_argument(
        "--from", dest="since", required=True, metavar="T", help="2026-05-31T14:05:00, UTC; or now"
    )
    parser.add_argument("--to", required=True, metavar="T", help="may lie ahead")


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", type=Path, required=True, help="the receiver's folder, its key")
    parser.add_argument("--broker", default="127.0.0.1:1883", metavar="HOST:PORT")
    parser.add_argument("--site", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--wait", type=float, default=10.0, metavar="S", help="for its answer (10)")


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
    done = orders.order(options.config, options.set, "hold", _asked(options), options.by)
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


def _asked(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "camera": options.camera,
        "from_utc_ms": orders.utc_ms(options.since),
        "to_utc_ms": orders.utc_ms(options.to),
        "reason": options.reason,
    }


def _order_hold(options: argparse.Namespace) -> int:
    return _tell(options, "hold", {**_asked(options), "by": options.by})


def _order_release(options: argparse.Namespace) -> int:
    args = {"hold": options.hold, "reason": options.reason, "by": options.by}
    return _tell(options, "release", args)


def _tell(options: argparse.Namespace, word: str, args: dict[str, Any]) -> int:
    answer = orders.command(options, word, args)
    if answer is None:
        print(f"sent; {options.device} has not answered yet, the broker keeps it for it")
        return EXIT_FAILED
    print(f"{options.device}: {answer['state']}: {answer['detail']}")
    return EXIT_OK if answer["state"] == "done" else EXIT_FAILED


def _list(options: argparse.Namespace) -> int:
    told = orders.keepsakes(options.config, options.set)
    if options.json:
        print(json.dumps(told))
        return EXIT_OK
    for name, rows in told.items():
        print(f"{name}: {len(rows)}")
        print_table(rows)
    return EXIT_OK
