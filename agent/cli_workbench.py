"""The technician's commands: choosing, measuring and trying."""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import workbench
from agent.cli_words import (
    EXIT_FAILED,
    EXIT_OK,
    bar,
    command,
    config_options,
    print_lines,
    print_table,
)
from agent.core.errors import ConfigError

if TYPE_CHECKING:
    from agent.core.model import Event
    from agent.vision.tune import Table

_DIGITS = 10  # alarms a day are told with a decimal below it


def add(words: Any) -> None:
    """Declare the commands."""
    _add_analyse(words)
    _add_calibrate(words)
    _add_derive(words)
    _add_tune(words)


def _add_analyse(words: Any) -> None:
    analyse = command(words, "analyse", _analyse, "events of a video, a folder or track logs")
    analyse.add_argument("video", nargs="+", metavar="VIDEO_FOLDER_OR_LOG")
    analyse.add_argument("--jsonl", action="store_true", help="one JSON object a line")
    config_options(analyse)
    analyse.add_argument("--camera", default="", help="whose rules (the log's, or the first's)")
    analyse.add_argument(
        "--against", type=Path, metavar="FILE", help="tell what another configuration changes"
    )
    analyse.add_argument(
        "--html", type=Path, metavar="DIR", help="of a folder of recordings: a page of pictures"
    )
    analyse.add_argument(
        "--every", type=float, default=0.0, metavar="S", help="and a picture at every S seconds"
    )


def _add_calibrate(words: Any) -> None:
    calibrate = command(words, "calibrate", _calibrate, "a camera's ground in metres, by points")
    calibrate.add_argument("--snapshot", type=Path, required=True, metavar="FILE.jpg")
    calibrate.add_argument(
        "--points",
        nargs="+",
        default=[],
        metavar="x,y=X,Y",
        help="points of the picture (pixels or fractions) and their place in metres,"
        " or a TOML file of them; four or more, six to know the error",
    )
    calibrate.add_argument("--rectangle", metavar='"x,y x,y x,y x,y"', help="corners, in order")
    calibrate.add_argument("--sides", default="", metavar="AxB", help="its sides in metres")
    calibrate.add_argument(
        "--straight",
        action="append",
        default=[],
        metavar='"x,y x,y x,y"',
        help="a line that is straight in reality, for the lens (may be repeated)",
    )
    calibrate.add_argument("--check", metavar='"x,y x,y = METRES"', help="a known length")
    calibrate.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    calibrate.add_argument("--grid", type=Path, metavar="FILE.jpg", help="draw the grid over it")
    calibrate.add_argument("--by", default="", metavar="NAME", help="who measured (the user)")


def _add_derive(words: Any) -> None:
    derive = command(words, "derive", _derive, "a masked copy of a sealed clip, for giving away")
    derive.add_argument("clip", type=Path, metavar="CLIP_FOLDER")
    config_options(derive)
    derive.add_argument("--out", type=Path, required=True, metavar="DIR")
    derive.add_argument("--reason", default="", metavar="TEXT", help="told in its manifest")


def _add_tune(words: Any) -> None:
    tune = command(words, "tune", _tune, "alarms a day at each sensitivity, from track logs")
    config_options(tune)
    tune.add_argument("--camera", default="", help="which one (the log's, or the first)")
    tune.add_argument(
        "--log", nargs="+", type=Path, default=[], metavar="FILE", help="(the agent's own)"
    )
    tune.add_argument("--days", type=int, default=3, metavar="N", help="newest days (3), 0: all")


def _analyse(options: argparse.Namespace) -> int:
    if Path(options.video[0]).is_dir() or options.html is not None:
        return _review(options)
    logs = [workbench.is_track_log(name) for name in options.video]
    if any(logs) != all(logs) or (not any(logs) and len(options.video) > 1):
        raise ConfigError("analyse: allowed: one video or stream, or track logs of one camera")
    watch = partial(bar, what="replaying")
    if options.against is not None:
        if not any(logs):
            raise ConfigError(
                "analyse: --against; allowed: with track logs (<camera>/<day>.jsonl.zst)"
            )
        return _print_difference(options, watch)
    found: Iterable[Mapping[str, Any]] = (
        workbench.analyse_logs(options, watch) if any(logs) else workbench.analyse_video(options)
    )
    if options.jsonl:
        return print_lines(found)
    for item in found:
        event = item["event"]
        when = f"{item['start_pts_s']:8.2f} s" if "start_pts_s" in item else _moment(event)
        print(
            f"{when}  {event['kind']:12} {event['rule']:24}"
            f" {event['label']:8} {event['score']:.2f}  {event['reason']}"
        )
    return EXIT_OK


def _review(options: argparse.Namespace) -> int:
    is_folder = len(options.video) == 1 and Path(options.video[0]).is_dir()
    if not is_folder or options.html is None or options.against is not None or options.every < 0:
        raise ConfigError("analyse: allowed for recordings: FOLDER --html DIR [--every SECONDS]")
    found = workbench.review(options, partial(bar, what="looking"))
    for broken in found.broken:
        print(f"outpost: {broken.path}: {broken.reason}", file=sys.stderr)
    read = found.files - len(found.broken)
    print(f"{options.html / workbench.PAGE}: {read} of {found.files} files read to their end")
    return EXIT_OK if found.pictures else EXIT_FAILED


def _print_difference(options: argparse.Namespace, watch: workbench.Watch) -> int:
    found = workbench.compare_logs(options, watch)
    for event in found.only_first:
        print(f"- {_told(event)}")
    for event in found.only_second:
        print(f"+ {_told(event)}")
    for one, other in found.changed:
        print(f"~ {_told(one)}\n  {_told(other)}")
    print(
        f"{found.both} the same, {len(found.changed)} at other times (~),"
        f" {len(found.only_first)} only in {options.config} (-),"
        f" {len(found.only_second)} only in {options.against} (+)"
    )
    return EXIT_OK


def _calibrate(options: argparse.Namespace) -> int:
    if bool(options.rectangle) != bool(options.sides):
        raise ConfigError("calibrate: allowed: --rectangle together with --sides AxB")
    found = workbench.calibrate(options)
    print_table(found.points)
    for name, fact in found.facts.items():
        print(f"{name:9} {fact}")
    print(f"{found.path}: written; name it in calibration_path of the camera")
    return EXIT_OK


def _derive(options: argparse.Namespace) -> int:
    folder, key = workbench.derive(options)
    print(f"{folder}: made; look at it, then check with: outpost verify {folder} --key {key}")
    return EXIT_OK


def _tune(options: argparse.Namespace) -> int:
    found = workbench.tune(options, partial(bar, what="replaying"))
    extent = found.extent
    if not extent.views or extent.first_utc_ns is None:
        raise ConfigError("tune: the logs hold no view; allowed: logs of a camera that was seen")
    first, last = (_utc(ns // 1_000_000) for ns in (extent.first_utc_ns, extent.last_utc_ns))
    span = f"{extent.hours:.1f} hours" if extent.hours >= 1 else f"{extent.hours * 60:.1f} minutes"
    print(f"rests on {span} that were looked at, {first} to {last} UTC")
    if extent.damaged:
        print(f"{len(extent.damaged)} damaged pieces of the logs were left out")
    print_table(_rows(found))
    print("alarms a day; sets: what the sensitivity sets, with its present value; -: nothing")
    if extent.hours < workbench.HOURS_OF_A_DAY:
        print("less than a day: what happens at other hours is not in these numbers")
    return EXIT_OK


def _rows(found: "Table") -> Sequence[Mapping[str, Any]]:
    return [
        {
            "rule": row.rule,
            "kind": row.kind,
            **{level: _rate(found.a_day(row, level)) for level in workbench.LEVELS},
            "sets": row.keys or None,
        }
        for row in found.rows
    ]


def _rate(a_day: float | None) -> str | None:
    if a_day is None:
        return None
    return f"{a_day:.1f}" if a_day < _DIGITS else f"{a_day:.0f}"


def _told(event: "Event") -> str:
    end_utc_ns = event.end_utc_ns or event.start_utc_ns
    lasted_s = (end_utc_ns - event.start_utc_ns) / 1e9
    when = _utc(event.start_utc_ns // 1_000_000)
    return f"{when}  {lasted_s:7.1f} s  {event.kind:12} {event.rule:24} {event.label}"


def _moment(event: Mapping[str, Any]) -> str:
    return _utc(event["start_utc_ms"])


def _utc(utc_ms: int) -> str:
    moment = datetime.fromtimestamp(utc_ms / 1000, UTC)
    return moment.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
