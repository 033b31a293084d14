"""The technician's commands: choosing, measuring and trying."""

import argparse
from pathlib import Path
from typing import Any

from agent import workbench
from agent.cli_words import EXIT_OK, command, print_table
from agent.core.errors import ConfigError


def add(words: Any) -> None:
    """Declare the commands."""
    _add_calibrate(words)


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


def _calibrate(options: argparse.Namespace) -> int:
    if bool(options.rectangle) != bool(options.sides):
        raise ConfigError("calibrate: allowed: --rectangle together with --sides AxB")
    found = workbench.calibrate(options)
    print_table(found.points)
    for name, fact in found.facts.items():
        print(f"{name:9} {fact}")
    print(f"{found.path}: written; name it in calibration_path of the camera")
    return EXIT_OK
