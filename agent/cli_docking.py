"""`outpost ingest`, `rescue`, `tag`: footage of body cameras by hand."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import dockdesk, orders
from agent.cli_words import EXIT_FAILED, EXIT_OK, command, config_options
from agent.core import log

if TYPE_CHECKING:
    from agent.docking.bench import Pace
    from agent.docking.ingest import Taken
    from agent.docking.rescue import Rescued


def add(words: Any) -> None:
    """Declare the commands."""
    text = "copy a card or folder, sealed file by file, with a signed list; goes on if cut short"
    ingest = command(words, "ingest", _ingest, text)
    ingest.add_argument("card", type=Path, metavar="DIR", help="it is only read")
    ingest.add_argument("--out", type=Path, required=True, metavar="DIR", help="may hold others")
    ingest.add_argument("--serial", default="", metavar="S", help="the camera's (DIR's name)")
    ingest.add_argument("--officer", default="", metavar="NAME", help="who carried the camera")
    ingest.add_argument(
        "--key", type=Path, metavar="FILE", help="that signs; else OUT/keys/device.key, made once"
    )
    ingest.add_argument("--json", action="store_true", help="print what came of it")
    tag = command(words, "tag", _tag, "say what a docked camera's file is about")
    config_options(tag)
    tag.add_argument("id", metavar="ID", help="as a session list and `outpost status` name it")
    tag.add_argument("--category", metavar="C", help="of a file nobody has tagged: unclassified")
    tag.add_argument("--incident", metavar="N", help="its number; empty takes it away")
    tag.add_argument("--note", metavar="TEXT", help="empty takes it away")
    tag.add_argument("--by", required=True, metavar="NAME", help="who says so; kept as well")
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


def _ingest(options: argparse.Namespace) -> int:
    from agent.docking.bench import Pace  # noqa: PLC0415 - only here
    from agent.docking.ingest import Card  # noqa: PLC0415

    log.setup(verbose=options.verbose, quiet=True)  # the end says what came of each file
    card = Card(options.card, options.serial, options.officer)
    pace = Pace()
    try:
        with _progress(pace) as tick:
            taken = dockdesk.ingest(card, options.out, options.key, pace, tick)
    except KeyboardInterrupt:
        print("outpost: stopped; the same command goes on where it was", file=sys.stderr)
        return EXIT_FAILED
    if options.json:
        print(json.dumps(_document(taken)))
    else:
        for line in _told(taken, options.out, options.key):
            print(line)
    return EXIT_FAILED if taken.counts["not_copied"] else EXIT_OK


@contextmanager
def _progress(pace: "Pace") -> Iterator[Callable[[int], None]]:
    """Show on a terminal how far it is; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich import progress  # noqa: PLC0415 - only where somebody looks
    from rich.console import Console  # noqa: PLC0415

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("listing", total=None)

        def tick(_: int) -> None:
            what = f"file {min(pace.files_done + 1, pace.files_total)} of {pace.files_total}"
            shown.update(task, description=what, total=pace.bytes_total, completed=pace.bytes_done)

        yield tick


def _document(taken: "Taken") -> dict[str, Any]:
    return {
        "camera": taken.camera,
        "session_id": taken.session_id,
        "list": str(taken.list_path),
        "list_sha256": taken.list_sha256,
        "code": taken.quarantine,
        "counts": taken.counts,
        "flags": taken.flags,
    }


def _told(taken: "Taken", out: Path, key_path: Path | None) -> list[str]:
    from agent.docking.codes import meaning  # noqa: PLC0415 - only here

    counts = taken.counts
    words = (
        f"{counts['files']} files: {counts['copied']} copied and sealed",
        f"{counts['here_before']} were here already",
        f"{counts['same_bytes']} with bytes that were here",
        f"{counts['not_copied']} not copied",
        f"{counts['ignored']} other things left out",
    )
    lines = [f"{taken.camera}: {', '.join(words)}"]
    if not counts["copied"] and not counts["not_copied"]:
        lines.append("nothing new: nothing was copied")
    lines += [f"{number} {flag}" for flag, number in sorted(taken.flags.items())]
    if taken.quarantine:
        told = meaning(taken.quarantine)
        lines.append(f"{taken.quarantine}: {told.sentence} {told.cure}")
    public = (key_path or out / dockdesk.KEYS / dockdesk.KEY_NAME).with_suffix(".pub")
    lines += [
        f"signed list: {taken.list_path}",
        f"check it: outpost verify {out} --key {public}",
    ]
    return lines


def _tag(options: argparse.Namespace) -> int:
    named = {name: getattr(options, name) for name in ("category", "incident", "note")}
    said = {name: value for name, value in named.items() if value is not None}
    args = {"footage": options.id, **said}
    told = orders.order(options.config, options.set, "footage.tag", args, options.by)
    for name, value in told["new"].items():
        old = told["old"][name]
        print(f"{name}: {value!r}" + ("" if old == value else f" (was {old!r})"))
    return EXIT_OK


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
