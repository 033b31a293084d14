"""Arm cycles of one vehicle, from what is heard of it: when it flew, and when it only ran.

idle ─► armed ─► airborne ─► landed ─► disarmed ─► ended (20 s later: a quick re-arm joins it)

No I/O and no clock: everything comes with the messages, and the whole state is plain data, so that
a restart in the air goes on where it was. Whether it is in the air is what the autopilot says
(EXTENDED_SYS_STATE); of one that does not say, by its height.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from agent.core.clock import NS_PER_S
from agent.core.vehicle import Heard
from agent.flight import place
from agent.flight.model import Flight, Kind, LinkLoss, Phase

ARMED_BIT = 128  # MAV_MODE_FLAG_SAFETY_ARMED
NO_AUTOPILOT = 8  # MAV_AUTOPILOT_INVALID: a ground station, a camera, a gimbal
ON_GROUND, IN_AIR = 1, 2  # MAV_LANDED_STATE; 3 (take-off) and 4 (landing) are neither
TAKEOFF_M, TAKEOFF_S = 1.5, 1.0
LANDED_M, LANDED_MPS, LANDED_S = 0.8, 0.3, 2.0
JOIN_S = 20.0
LOSS_S = 5.0  # nothing heard for as long is a loss of the link
LOST_S = 900.0  # and for as long is the end of the session
REBOOT_MS = 2_000  # a boot clock that falls by more: smaller falls are messages out of order
FASTEST_MPS = 150.0  # what is faster is a jump of the position
ARMED = "armed"
FLYING = (Phase.ARMED, Phase.AIRBORNE, Phase.LANDED)


@dataclass(frozen=True, slots=True)
class Change:
    """Something happened: where the session is now, and the flight as known so far."""

    phase: Phase
    flight: Flight
    what: str  # armed, airborne, landed, disarmed, ended, link lost, link back, reboot


@dataclass(slots=True)
class State:
    """All that is remembered of one vehicle; plain numbers, texts and lists."""

    phase: Phase = Phase.IDLE
    first_mono_ns: int | None = None
    last_mono_ns: int = 0
    last_utc_ns: int = 0
    boot_ms: int | None = None
    silence: list[int] = field(default_factory=list)  # from and to, UTC; not judged yet
    flight_id: str = ""
    session_id: str = ""
    start_mono_ns: int = 0
    start_utc_ns: int = 0
    end_mono_ns: int = 0
    end_utc_ns: int = 0
    takeoff_utc_ns: int | None = None
    landed_utc_ns: int | None = None
    ground_m: float | None = None  # where it was armed, above home
    height_m: float | None = None
    max_height_m: float = 0.0
    distance_m: float = 0.0
    spot: list[float] = field(default_factory=list)  # lat, lon and boot ms of the last fix
    reboots: int = 0
    losses: list[list[int]] = field(default_factory=list)
    is_whole: bool = True
    is_told_landed: bool = False  # the autopilot tells whether it is in the air
    high_from_ns: int | None = None
    low_from_ns: int | None = None
    is_lost: bool = False

    def stored(self) -> dict[str, Any]:
        """Give it as JSON can hold it."""
        return asdict(self)

    @classmethod
    def restored(cls, stored: dict[str, Any]) -> "State":
        """Take it back; KeyError and TypeError for what `stored` did not give."""
        return cls(**{**stored, "phase": Phase(stored["phase"])})


class Sessions:
    """The sessions of one vehicle.

    Args:
        vehicle: its name.
        state: as it was stored by an earlier start of the agent.
    """

    def __init__(self, vehicle: str, state: State | None = None) -> None:
        self.vehicle = vehicle
        self.state = State() if state is None else state
        self._changes: list[Change] = []

    def take(self, heard: Heard) -> Sequence[Change]:
        """Follow one message of the vehicle's autopilot; gives what changed by it.

        Args:
            heard: the message, with `utc_ns` in the vehicle's time where that is known.
        """
        state = self.state
        if state.first_mono_ns is None:
            state.first_mono_ns = heard.mono_ns
        self._changes = []
        self._note_silence(heard)
        state.last_mono_ns, state.last_utc_ns = heard.mono_ns, heard.utc_ns
        match heard.name:
            case "HEARTBEAT":
                self._heartbeat(heard)
            case "GLOBAL_POSITION_INT":
                self._boot(heard.said.time_boot_ms)
                self._position(heard)
            case "EXTENDED_SYS_STATE":
                self._landed_state(heard)
            case "ATTITUDE" | "SYSTEM_TIME":
                self._boot(heard.said.time_boot_ms)
        if state.phase == Phase.DISARMED and heard.mono_ns - state.end_mono_ns > JOIN_S * NS_PER_S:
            self._end()
        return self._changes

    def tick(self, mono_ns: int) -> Sequence[Change]:
        """Notice silence; call about once a second while nothing is heard."""
        state = self.state
        self._changes = []
        if state.phase == Phase.IDLE:
            return ()
        silent_ns = mono_ns - state.last_mono_ns
        if silent_ns > LOSS_S * NS_PER_S and not state.is_lost and state.phase != Phase.DISARMED:
            state.is_lost = True
            self._tell("link lost")
        limit_s = JOIN_S if state.phase == Phase.DISARMED else LOST_S
        if silent_ns > limit_s * NS_PER_S:
            self.finish()
        return self._changes

    def finish(self) -> Sequence[Change]:
        """Nothing more will be heard: end what is open with what is known."""
        state = self.state
        self._changes = []
        if state.phase in FLYING:
            state.is_whole = False
            self._disarm(state.last_mono_ns, state.last_utc_ns)
        if state.phase == Phase.DISARMED:
            self._end()
        return self._changes

    def flight(self) -> Flight:
        """Give the arm cycle that is going on, or was last, as known so far."""
        state = self.state
        is_over = state.phase in (Phase.DISARMED, Phase.ENDED, Phase.IDLE)
        end = (state.end_mono_ns, state.end_utc_ns)
        end_mono_ns, end_utc_ns = end if is_over else (state.last_mono_ns, state.last_utc_ns)
        first_ns = state.first_mono_ns or 0
        return Flight(
            id=state.flight_id,
            session=state.session_id,
            vehicle=self.vehicle,
            kind=Kind.GROUND_RUN if state.takeoff_utc_ns is None else Kind.FLIGHT,
            start_utc_ns=state.start_utc_ns,
            end_utc_ns=end_utc_ns,
            start_s=(state.start_mono_ns - first_ns) / NS_PER_S,
            end_s=(end_mono_ns - first_ns) / NS_PER_S,
            takeoff_utc_ns=state.takeoff_utc_ns,
            landed_utc_ns=state.landed_utc_ns,
            max_height_m=round(state.max_height_m, 2),
            distance_m=round(state.distance_m, 1),
            reboots=state.reboots,
            losses=tuple(LinkLoss(*loss) for loss in state.losses),
            is_whole=state.is_whole,
        )

    def _heartbeat(self, heard: Heard) -> None:
        is_armed = bool(heard.said.base_mode & ARMED_BIT)
        is_flying = self.state.phase in FLYING
        if is_armed and not is_flying:
            self._arm(heard)
        elif is_flying and not is_armed:
            self._judge_silence(None)
            self._disarm(*self._end_of(heard))

    def _end_of(self, heard: Heard) -> tuple[int, int]:
        """Say when a cycle ended that is over now: at once, or unseen during a loss."""
        losses = self.state.losses
        if losses and heard.utc_ns - losses[-1][1] < LOSS_S * NS_PER_S:
            self.state.is_whole = False
            start_utc_ns = losses[-1][0]
            return heard.mono_ns - (heard.utc_ns - start_utc_ns), start_utc_ns
        return heard.mono_ns, heard.utc_ns

    def _arm(self, heard: Heard) -> None:
        before = self.state
        joins = before.phase == Phase.DISARMED
        flight_id = f"{self.vehicle}-{heard.utc_ns // NS_PER_S}"
        is_first = heard.mono_ns == before.first_mono_ns
        self.state = State(
            phase=Phase.ARMED,
            first_mono_ns=before.first_mono_ns,
            last_mono_ns=before.last_mono_ns,
            last_utc_ns=before.last_utc_ns,
            boot_ms=before.boot_ms,
            flight_id=flight_id,
            session_id=before.session_id if joins else flight_id,
            start_mono_ns=heard.mono_ns,
            start_utc_ns=heard.utc_ns,
            ground_m=before.height_m,
            height_m=before.height_m,
            is_told_landed=before.is_told_landed,
            is_whole=not is_first,
        )
        self._tell(ARMED)

    def _disarm(self, mono_ns: int, utc_ns: int) -> None:
        state = self.state
        if state.phase == Phase.AIRBORNE:
            state.landed_utc_ns = utc_ns
        state.phase = Phase.DISARMED
        state.end_mono_ns, state.end_utc_ns = mono_ns, utc_ns
        self._tell("disarmed")

    def _end(self) -> None:
        self.state.phase = Phase.ENDED
        self._tell("ended")
        self.state.phase = Phase.IDLE

    def _landed_state(self, heard: Heard) -> None:
        state, told = self.state, heard.said.landed_state
        if told not in (ON_GROUND, IN_AIR):
            return
        state.is_told_landed = True
        if told == IN_AIR:
            self._rise(heard.utc_ns)
        else:
            self._touch(heard.utc_ns)

    def _position(self, heard: Heard) -> None:
        state, said = self.state, heard.said
        height_m = said.relative_alt / 1000
        state.height_m = height_m
        if state.phase not in FLYING:
            state.spot = []
            return
        if state.ground_m is None:
            state.ground_m = height_m if state.is_whole else 0.0
        above_m = height_m - state.ground_m
        state.max_height_m = max(state.max_height_m, above_m)
        self._travel(said)
        if not state.is_told_landed:
            self._judge(heard, above_m, abs(said.vz) / 100)

    def _travel(self, said: Any) -> None:
        state = self.state
        spot = place.spot(said.lat, said.lon)
        if spot is None:
            return
        if state.spot and state.phase == Phase.AIRBORNE:
            gone_m = place.distance_m(state.spot[0], state.spot[1], *spot)
            took_s = (said.time_boot_ms - state.spot[2]) / 1000
            if took_s > 0 and gone_m <= took_s * FASTEST_MPS:
                state.distance_m += gone_m
        state.spot = [*spot, said.time_boot_ms]

    def _judge(self, heard: Heard, above_m: float, climb_mps: float) -> None:
        """Say by the height whether it is in the air."""
        state = self.state
        is_high = above_m > TAKEOFF_M
        is_low = above_m < LANDED_M and climb_mps < LANDED_MPS
        state.high_from_ns = (state.high_from_ns or heard.mono_ns) if is_high else None
        state.low_from_ns = (state.low_from_ns or heard.mono_ns) if is_low else None
        if _is_long(state.high_from_ns, heard.mono_ns, TAKEOFF_S):
            self._rise(heard.utc_ns)
        elif _is_long(state.low_from_ns, heard.mono_ns, LANDED_S):
            self._touch(heard.utc_ns)

    def _rise(self, utc_ns: int) -> None:
        state = self.state
        if state.phase not in (Phase.ARMED, Phase.LANDED):
            return
        state.phase = Phase.AIRBORNE
        state.takeoff_utc_ns = state.takeoff_utc_ns or utc_ns
        state.landed_utc_ns = None
        self._tell("airborne")

    def _touch(self, utc_ns: int) -> None:
        if self.state.phase == Phase.AIRBORNE:
            self.state.phase = Phase.LANDED
            self.state.landed_utc_ns = utc_ns
            self._tell("landed")

    def _boot(self, boot_ms: int) -> None:
        state = self.state
        is_reboot = state.boot_ms is not None and boot_ms < state.boot_ms - REBOOT_MS
        self._judge_silence(None if is_reboot else boot_ms)
        state.boot_ms = boot_ms if is_reboot else max(boot_ms, state.boot_ms or 0)
        if is_reboot:
            state.spot = []
            if state.phase != Phase.IDLE:
                state.reboots += 1
                self._tell("reboot")

    def _note_silence(self, heard: Heard) -> None:
        """Note a long silence in a session: the link was lost, or our clock jumped."""
        state = self.state
        if state.phase not in FLYING:
            state.silence = []
        elif heard.mono_ns - state.last_mono_ns > LOSS_S * NS_PER_S and not state.silence:
            state.silence = [state.last_utc_ns, heard.utc_ns]

    def _judge_silence(self, boot_ms: int | None) -> None:
        """Say which it was by the vehicle's own clock; None: it does not help, a loss."""
        state = self.state
        silence, state.silence = state.silence, []
        if not silence:
            return
        state.is_lost = False
        if boot_ms is not None and state.boot_ms is not None:
            silent_s = (boot_ms - state.boot_ms) / 1000
            if silent_s < LOSS_S:
                return
        state.losses.append(silence)
        self._tell("link back")

    def _tell(self, what: str) -> None:
        self._changes.append(Change(self.state.phase, self.flight(), what))


def _is_long(from_ns: int | None, now_ns: int, least_s: float) -> bool:
    return from_ns is not None and now_ns - from_ns >= least_s * NS_PER_S
