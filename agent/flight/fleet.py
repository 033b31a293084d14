"""Whose message it is: every vehicle of a link or a file with its time base and its sessions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.core.vehicle import Heard
from agent.flight.session import Change, Sessions, State
from agent.flight.timebase import TimeBase

NO_AUTOPILOT = 8  # MAV_AUTOPILOT_INVALID: a ground station, a camera, a gimbal
GROUND_STATION = 6  # MAV_TYPE_GCS


@dataclass(slots=True)
class Vehicle:
    """One vehicle as it is heard."""

    name: str
    link: str
    sysid: int
    compid: int  # of its autopilot
    sessions: Sessions
    times: TimeBase = field(default_factory=TimeBase)


class Fleet:
    """All vehicles that are heard.

    Args:
        restore: gives what an earlier start of the agent stored of a vehicle.
    """

    def __init__(self, restore: Callable[[str], State | None] = lambda _name: None) -> None:
        self._restore = restore
        self._vehicles: dict[tuple[str, int], Vehicle] = {}

    @property
    def vehicles(self) -> Sequence[Vehicle]:
        """Every vehicle that was heard, in that order."""
        return tuple(self._vehicles.values())

    def take(self, heard: Heard) -> tuple[Vehicle | None, Heard, Sequence[Change]]:
        """Follow one message.

        Returns:
            Whose it is (None: of no vehicle), the message in that vehicle's time, and what changed
            by it.
        """
        vehicle = self._whose(heard)
        if vehicle is None:
            return None, heard, ()
        if heard.name == "SYSTEM_TIME" and heard.compid == vehicle.compid:
            vehicle.times.take(heard)
        timed = vehicle.times.timed(heard)
        if heard.compid != vehicle.compid:
            return vehicle, timed, ()
        return vehicle, timed, vehicle.sessions.take(timed)

    def _whose(self, heard: Heard) -> Vehicle | None:
        found = self._vehicles.get((heard.link, heard.sysid))
        if found is not None or heard.name != "HEARTBEAT":
            return found
        if heard.said.autopilot == NO_AUTOPILOT or heard.said.type == GROUND_STATION:
            return None
        name = f"{heard.link or 'vehicle'}-{heard.sysid}"
        vehicle = Vehicle(
            name, heard.link, heard.sysid, heard.compid, Sessions(name, self._restore(name))
        )
        self._vehicles[heard.link, heard.sysid] = vehicle
        return vehicle
