"""Flights by hand: what a recording of a vehicle's messages tells, without a configuration."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.core.clock import NS_PER_MS, NS_PER_S
from agent.flight import recording
from agent.flight.model import Flight
from drivers import _tlog


@dataclass(frozen=True, slots=True)
class Day:
    """What a recording holds."""

    flights: Sequence[Flight]
    counts: _tlog.Counts

    def document(self) -> dict[str, Any]:
        """Give it as JSON; times in milliseconds since 1970, lengths in metres."""
        return {
            "messages": self.counts.messages,
            "bad_bytes": self.counts.bad_bytes,
            "bad_places": self.counts.bad_places,
            "torn_bytes": self.counts.torn_bytes,
            "unknown_messages": self.counts.unknown,
            "sessions": [_row(flight) for flight in self.flights],
        }


def flights(tlog: Path) -> Day:
    """Read a recording.

    Raises:
        ConfigError: there is no such file, or it is no tlog.
    """
    counts = _tlog.Counts()
    return Day(recording.flights(_tlog.read(tlog, counts)), counts)


def _row(flight: Flight) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in asdict(flight).items():
        if name.endswith("_utc_ns"):
            row[f"{name.removesuffix('_ns')}_ms"] = None if value is None else value // NS_PER_MS
        elif name != "losses":
            row[name] = value
    row["link_losses"] = [
        {
            "start_utc_ms": loss.start_utc_ns // NS_PER_MS,
            "length_s": (loss.end_utc_ns - loss.start_utc_ns) / NS_PER_S,
        }
        for loss in flight.losses
    ]
    return row
