"""`outpost dock` and `outpost report dock`: what people at a dock, or behind it, ask."""

import argparse
import json
import re
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent import dockdesk, orders, portmap
from agent.cli_words import EXIT_FAILED, EXIT_OK, command, config_options, print_table
from agent.core.clock import RealClock
from agent.core.config import NAME
from agent.core.errors import ConfigError
from agent.roles.config import DockRole

WATCH_S = 1.0
MOST_HOURS = 100_000
LANGUAGES = ("en", "ru", "kk")


def add(words: Any) -> None:
    """Declare the commands."""
    dock = words.add_parser("dock", help="a dock's slots", description="A dock's slots.")
    below = dock.add_subparsers(metavar="WORD", required=True)
    text = "plug a camera into one slot after the other; prints the slots for the configuration"
    learn = command(below, "learn", _learn, text)
    learn.add_argument("slots", nargs="+", metavar="SLOT", help="names in the order you plug")
    learn.add_argument("--sys", type=Path, default=Path("/sys"), help=argparse.SUPPRESS)
    watch = command(below, "watch", _watch, "the slots on this terminal, until Ctrl-C")
    config_options(watch)
    slip = command(below, "slip", _slip, "an officer's receipt, or whether one is true")
    config_options(slip)
    slip.add_argument(
        "session", nargs="?", metavar="DOCKING", help="its id or the beginning of it, or a camera"
    )
    slip.add_argument("--qr", type=Path, metavar="FILE", help="also as a code: .svg or .png")
    slip.add_argument("--check", metavar="TEXT", help="what was scanned off a receipt")
    slip.add_argument("--language", choices=LANGUAGES, help="else `dock.language`")
    watch.add_argument("--once", action="store_true", help="show them once and end")
    _add_allow(below)
    reports = words.add_parser("report", help="how things stand", description="How things stand.")
    below = reports.add_subparsers(metavar="WORD", required=True)
    text = "cameras and officers that have not docked, footage that waits, what was set aside"
    report = command(below, "dock", _report, text)
    config_options(report)
    report.add_argument("--hours", type=float, metavar="N", help="else `dock.not_docked_h`")
    form = report.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true")
    form.add_argument("--csv", action="store_true", help="for a spreadsheet")


def _add_allow(below: Any) -> None:
    text = "let a full camera be wiped in a long outage, on the word of two disks"
    allow = command(below, "allow-wipe", _allow_wipe, text)
    config_options(allow)
    allow.add_argument("session", metavar="SESSION", help="its id, as slips show it")
    allow.add_argument("--reason", required=True, metavar="TEXT", help="kept in the custody log")
    allow.add_argument("--by", required=True, metavar="NAME", help="which supervisor; kept as well")


def _allow_wipe(options: argparse.Namespace) -> int:
    args = {"session": options.session, "reason": options.reason}
    orders.order(options.config, options.set, "dock.allow_wipe", args, options.by)
    _say(f"allowed for {options.session}, once the conditions of docs/DOCK.md hold")
    return EXIT_OK


def _learn(options: argparse.Namespace) -> int:
    for slot in options.slots:
        if not re.fullmatch(NAME.regex, slot) or options.slots.count(slot) > 1:
            raise ConfigError(f"dock learn: slot {slot!r}; allowed: {NAME.allowed}, each once")
    learnt: list[portmap.Learnt] = []
    plugged = portmap.learn(options.slots, options.sys, RealClock(), threading.Event())
    _say(f"Plug a camera into slot {options.slots[0]}.")
    try:
        for found in plugged:
            if isinstance(found, portmap.Odd):
                _say(found.why)
                continue
            learnt.append(found)
            _say(f"Slot {found.slot}: {found.device} on {found.ports[0]}")
            if len(learnt) < len(options.slots):
                _say(f"Plug a camera into slot {options.slots[len(learnt)]}.")
    except KeyboardInterrupt:
        _say(f"Stopped: {len(learnt)} of {len(options.slots)} slots learnt.")
    if learnt:
        print(portmap.toml(learnt))
    return EXIT_OK if len(learnt) == len(options.slots) else EXIT_FAILED


def _watch(options: argparse.Namespace) -> int:
    settings = dockdesk.load(options.config, options.set)
    if options.once:
        return _watch_once(settings)
    with suppress(KeyboardInterrupt):
        if sys.stdout.isatty():
            _watch_screen(settings)
        else:
            _watch_lines(settings)
    return EXIT_OK


def _watch_once(settings: DockRole) -> int:
    from rich.console import Console  # noqa: PLC0415 - only where somebody looks

    from agent.docking.screen import screen  # noqa: PLC0415

    status, language = dockdesk.told(settings)
    console = Console()
    console.print(screen(status, language, console.height))
    return EXIT_OK if status["running"] else EXIT_FAILED


def _watch_screen(settings: DockRole) -> None:
    from rich.console import Console  # noqa: PLC0415 - only where somebody looks
    from rich.live import Live  # noqa: PLC0415

    from agent.docking.screen import screen  # noqa: PLC0415

    console, clock, stop = Console(), RealClock(), threading.Event()
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            status, language = dockdesk.told(settings)
            live.update(screen(status, language, console.height), refresh=True)
            clock.wait(stop, WATCH_S)


def _watch_lines(settings: DockRole) -> None:
    """Print a line whenever a slot has changed: for a log, a pipe or a screen reader."""
    clock, stop = RealClock(), threading.Event()
    shown: dict[str, object] = {}
    while True:
        for name, (news, text) in dockdesk.sentences(settings).items():
            if name not in shown or shown[name] != news:
                print(text, flush=True)
            shown[name] = news
        clock.wait(stop, WATCH_S)


def _slip(options: argparse.Namespace) -> int:
    from agent.docking import slip as slips  # noqa: PLC0415 - only here

    settings = dockdesk.load(options.config, options.set)
    if (options.check is None) == (options.session is None):
        raise ConfigError("dock slip: allowed: one docking, or --check and what was scanned")
    if options.check is not None:
        checked = dockdesk.check_slip(settings, options.check)
        for words in checked.words:
            print(words)
        return EXIT_OK if checked.is_true else EXIT_FAILED
    slip = dockdesk.slip(settings, options.session)
    print(slips.text(slip, options.language or settings.dock.language), end="")
    print(slips.code(slip))
    if options.qr is not None:
        dockdesk.draw(slips.code(slip), options.qr)
    return EXIT_OK


def _report(options: argparse.Namespace) -> int:
    from agent.docking import reportlines  # noqa: PLC0415 - only here

    if options.hours is not None and not 0 <= options.hours <= MOST_HOURS:
        raise ConfigError(f"report dock: --hours {options.hours:g}; allowed: 0 to {MOST_HOURS}")
    settings = dockdesk.load(options.config, options.set)
    found = dockdesk.report(settings, options.hours)
    if options.json:
        print(json.dumps(found))
    elif options.csv:
        print(reportlines.table(found), end="")
    else:
        for heading, rows in reportlines.sections(found):
            print(f"{heading}: {'' if rows else 'none'}".rstrip())
            print_table(rows)
            print()
        for note in reportlines.notes(found):
            print(note)
    return EXIT_OK


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
