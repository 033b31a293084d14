"""`outpost rescue`: a recording that no player opens is made playable."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli_words import EXIT_OK, command

if TYPE_CHECKING:
    from agent.docking.rescue import Rescued


def add(words: Any) -> None:
    """Declare the commands."""
    rescue = command(words, "rescue", _rescue, "a playable copy of a broken MP4")
    rescue.add_argument("broken", type=Path, metavar="BROKEN", help="it is never changed")
    rescue.add_argument(
        "--like",
        type=Path,
        required=True,
        metavar="GOOD",
        help="a good MP4 of the same camera model and mode, or a header kept of one",
    )
    rescue.add_argument("--out", type=Path, required=True, metavar="FILE", help="and FILE.json")
    rescue.add_argument(
        "--keep-header", type=Path, metavar="FILE", help="what GOOD tells, for --like another day"
    )
    rescue.add_argument("--json", action="store_true", help="print the facts")


def _rescue(options: argparse.Namespace) -> int:
    from agent.docking import rescue  # noqa: PLC0415 - only here

    made = rescue.rescue(options.broken, options.like, options.out, options.keep_header)
    if options.json:
        print(json.dumps(json.loads(made.facts_path.read_text())))
        return EXIT_OK
    for line in _words(made):
        print(line)
    return EXIT_OK


def _words(made: "Rescued") -> list[str]:
    outcome = made.outcome
    how = "its own index" if outcome.way == "index" else "a search by the good clip"
    sound = "with sound" if made.has_sound else "without sound"
    if not made.has_sound and made.header.sound:
        sound += f" (the good clip has {made.header.sound})"
    lost = (
        f"lost of what is in the file: about {made.lost_s:.1f} s"
        f" ({made.lost_bytes} bytes, {outcome.left_out} pictures left out);"
        " what was never written is not counted"
    )
    return [
        f"{made.path}: {outcome.pictures} pictures, {made.seconds:.1f} s, {made.header}, {sound}",
        f"found by {how}; facts: {made.facts_path}",
        lost,
        f"original unchanged: sha256 {made.original.sha256}",
    ]
