"""`outpost dock learn`: which USB port is which slot."""

import argparse
import re
import sys
import threading
from pathlib import Path
from typing import Any

from agent import portmap
from agent.cli_words import EXIT_FAILED, EXIT_OK, command
from agent.core.clock import RealClock
from agent.core.config import NAME
from agent.core.errors import ConfigError


def add(words: Any) -> None:
    """Declare the commands."""
    dock = words.add_parser("dock", help="a dock's slots", description="A dock's slots.")
    below = dock.add_subparsers(metavar="WORD", required=True)
    text = "plug a camera into one slot after the other; prints the slots for the configuration"
    learn = command(below, "learn", _learn, text)
    learn.add_argument("slots", nargs="+", metavar="SLOT", help="names in the order you plug")
    learn.add_argument("--sys", type=Path, default=Path("/sys"), help=argparse.SUPPRESS)


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


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
