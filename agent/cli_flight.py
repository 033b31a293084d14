"""`outpost flights`: the flights in a recording of a vehicle's messages."""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli_words import EXIT_OK, command, print_table
from agent.core.clock import NS_PER_S

if TYPE_CHECKING:
    from agent.flight.model import Flight


def add(words: Any) -> None:
    """Declare the commands."""
    text = "the flights and ground runs in a recording of a vehicle's messages (tlog)"
    flights = command(words, "flights", _flights, text)
    flights.add_argument("tlog", type=Path, metavar="TLOG", help="a .tlog, also gzipped")
    flights.add_argument("--json", action="store_true")


def _flights(options: argparse.Namespace) -> int:
    from agent import flightdesk  # noqa: PLC0415 - pymavlink takes 0.3 s to import

    day = flightdesk.flights(options.tlog)
    if options.json:
        print(json.dumps(day.document()))
        return EXIT_OK
    print_table([_row(number, flight) for number, flight in enumerate(day.flights, 1)])
    found = [flight.kind.value for flight in day.flights]
    runs = found.count("ground-run")
    told = f"{_counted(len(found) - runs, 'flight')}, {_counted(runs, 'ground run')}"
    print(f"{day.counts.messages} messages; {told}")
    if day.counts.bad_bytes:
        damage = f"{day.counts.bad_bytes} bytes at {day.counts.bad_places} places"
        print(f"outpost: {options.tlog}: damaged: {damage} were passed over", file=sys.stderr)
    return EXIT_OK


def _row(number: int, flight: "Flight") -> dict[str, Any]:
    marks = [
        "not whole" if not flight.is_whole else "",
        f"link lost {len(flight.losses)}x" if flight.losses else "",
        f"rebooted {flight.reboots}x" if flight.reboots else "",
    ]
    armed = datetime.fromtimestamp(flight.start_utc_ns // NS_PER_S, UTC)
    return {
        "no": number,
        "vehicle": flight.vehicle,
        "kind": flight.kind.value,
        "armed (UTC)": f"{armed:%Y-%m-%d %H:%M:%S}",
        "at s": f"{flight.start_s:.1f}",
        "for s": f"{flight.end_s - flight.start_s:.1f}",
        "max height m": f"{flight.max_height_m:.1f}",
        "distance m": f"{flight.distance_m:.0f}",
        "notes": ", ".join(filter(None, marks)) or "-",
    }


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
