"""What every command shares: how it is declared, how it prints, how it ends."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_CONFIG = 0, 1, 2, 78

_UNITS_PER_S = {"utc_ns": 1_000_000_000, "utc_ms": 1000}

T = TypeVar("T")

Command = Callable[[argparse.Namespace], int]


def command(words: Any, name: str, does: Command, text: str) -> argparse.ArgumentParser:
    """Declare a command; `argparse.SUPPRESS` as its text hides it."""
    extra = {} if text is argparse.SUPPRESS else {"help": text, "description": text}
    parser: argparse.ArgumentParser = words.add_parser(name, **extra)
    parser.set_defaults(command=does)
    return parser


def config_options(parser: argparse.ArgumentParser, *, is_required: bool = True) -> None:
    """Declare `--config` and `--set`."""
    parser.add_argument("--config", type=Path, required=is_required, metavar="FILE")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replace one value: broker.port=1884, cameras.0.id=gate (may be repeated);"
        " relative paths count from the file's folder",
    )


def bar(items: Sequence[T], what: str) -> Iterator[T]:
    """Pass things on and show on a terminal how far it is; elsewhere show nothing."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console  # noqa: PLC0415 - only where somebody looks
    from rich.progress import track  # noqa: PLC0415

    yield from track(items, what, console=Console(stderr=True), transient=True)


def print_lines(items: Iterable[Mapping[str, Any]]) -> int:
    """Print one JSON object a line."""
    for item in items:
        print(json.dumps(item), flush=True)
    return EXIT_OK


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows under the first one's keys."""
    if not rows:
        return
    columns = list(rows[0])
    heads = [name.removesuffix("_ns").removesuffix("_ms") for name in columns]
    texts = [heads, *([cell(name, row.get(name)) for name in columns] for row in rows)]
    widths = [max(len(line[index]) for line in texts) for index in range(len(columns))]
    for line in texts:
        print(
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        )


def cell(name: str, value: Any) -> str:
    """Give a value as a table shows it."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    unit = next((unit for unit in _UNITS_PER_S if name.endswith(unit)), None)
    if unit is not None and isinstance(value, int):
        moment = datetime.fromtimestamp(value / _UNITS_PER_S[unit], UTC)
        return moment.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")
    return str(value)
