"""What stands at each slot for a person: one word, one colour, and the figures beside it.

A pure reading of rows, besides what only the running machine knows: how fast it copies, and whom a
slot calls just now.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from agent.core.clock import NS_PER_MS, Clock
from agent.core.store import Store
from agent.docking.bench import Pace
from agent.docking.codes import Code
from agent.docking.config import DockConfig
from agent.docking.names import shown
from agent.docking.slotrows import Docking, SlotRows
from agent.docking.states import COLOURS, State, Word

DAY_MS = 24 * 3600 * 1000
SHORT = 16  # letters of an officer's name
RESTING = frozenset({State.UPLOADING, State.RECEIPTED, State.READY, State.QUARANTINE})
CALLING = frozenset({State.UNKNOWN, State.ATTENTION, State.PULLED})


@dataclass(frozen=True, slots=True)
class Tally:
    """A docking's files, counted."""

    files: int = 0
    files_safe: int = 0  # sealed here, or farther
    files_signed: int = 0  # by the centre
    size_bytes: int = 0
    safe_bytes: int = 0
    files_to_wipe: int = 0  # on the camera still, and nothing speaks against their wipe
    files_other: int = 0  # no recordings
    files_refused: int = 0  # by the centre, for good


@dataclass(frozen=True, slots=True)
class Facts:
    """What the word of a slot depends on, besides its state."""

    quarantine: str = ""
    is_called: bool = False
    battery_percent: int | None = None
    free_percent: float | None = None
    files_to_wipe: int = 0


@dataclass(frozen=True, slots=True)
class SlotView:
    """What stands at a slot; `document` is its form in `outpost status --json`."""

    slot: str
    word: Word
    colour: str
    code: str
    state: State
    waits_for: str  # why a camera whose footage is safe is not to be taken: charge, wipe
    camera: str
    officer: str
    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int
    seconds_left: int | None
    battery_percent: int | None
    clock_offset_ms: int | None
    footage: str  # on_camera, in_dock, at_centre, none; empty: not known yet, or no camera
    notes: Sequence[str]  # codes of what a technician should see to some time
    session: str
    since_utc_ms: int
    detail: str

    def document(self) -> dict[str, object]:
        """Give it as JSON has it."""
        return asdict(self) | {"word": str(self.word), "state": str(self.state)}


@dataclass(frozen=True, slots=True)
class Live:
    """What only the running machine knows."""

    clock: Clock
    called: Callable[[str], str] = lambda _: ""  # officer whom a slot calls
    paces: Mapping[str, Pace] | None = None


def word(state: State, facts: Facts, config: DockConfig) -> tuple[Word, str]:
    """Give the one word of a slot, and what the camera waits for if it is not to be taken yet."""
    if state in CALLING or (state in RESTING and facts.quarantine):
        return Word.CALL, ""
    if state not in RESTING:
        return (Word.EMPTY if state is State.EMPTY else Word.BUSY), ""
    if facts.is_called:
        return Word.TAKE, ""
    if _is_full(facts, config):
        return Word.BUSY, "wipe"
    percent = 100 if facts.battery_percent is None else facts.battery_percent
    is_low = percent < config.min_battery_percent
    return (Word.CHARGING, "charge") if is_low else (Word.READY, "")


def slots(store: Store, names: Sequence[str], config: DockConfig, live: Live) -> Sequence[SlotView]:
    """Give what stands at each slot, in the order of `names`."""
    rows = SlotRows(store, live.clock)
    return [_slot(store, rows, name, (config, live)) for name in names]


def _slot(store: Store, rows: SlotRows, name: str, around: tuple[DockConfig, Live]) -> SlotView:
    config, live = around
    slot = rows.slot(name)
    docking = rows.docking(slot.session_id) if slot.session_id else None
    with store.reading() as connection:
        tally = Tally() if docking is None else count(connection, docking.id)
    pace = (live.paces or {}).get(name)
    is_copying = slot.state is State.COPYING
    facts = Facts(
        quarantine="" if docking is None else docking.quarantine,
        is_called=bool(live.called(name)),
        battery_percent=None if docking is None else docking.battery_percent,
        free_percent=None if pace is None else pace.free_percent,
        files_to_wipe=tally.files_to_wipe,
    )
    chosen, waits_for = word(slot.state, facts, config)
    seconds = pace.seconds_left(live.clock.mono_ns()) if pace is not None and is_copying else None
    done = tally.safe_bytes
    return SlotView(
        slot=name,
        word=chosen,
        colour=COLOURS[chosen],
        code=(slot.code or facts.quarantine) if chosen is Word.CALL else "",
        state=slot.state,
        waits_for=waits_for,
        camera="" if docking is None else docking.camera,
        officer=_officer(docking, live.called(name), config),
        files_done=tally.files_safe,
        files_total=tally.files,
        bytes_done=max(done, pace.bytes_done) if pace is not None and is_copying else done,
        bytes_total=tally.size_bytes,
        seconds_left=None if seconds is None else round(seconds),
        battery_percent=facts.battery_percent,
        clock_offset_ms=None if docking is None else docking.clock_offset_ms,
        footage=_footage(slot.state, docking, tally),
        notes=_notes(docking, tally, config),
        session=slot.session_id,
        since_utc_ms=slot.since_utc_ns // NS_PER_MS,
        detail=plain(slot.detail),
    )


def count(connection: sqlite3.Connection, session_id: str) -> Tally:
    """Count the files that were seen in a docking."""
    row = connection.execute(
        "SELECT count(*), sum(here != 'no'), sum(here IN ('receipted', 'deleted')),"
        " sum(size_bytes), sum(iif(here != 'no', size_bytes, 0)),"
        " sum(there = 'yes' AND kept_because = '' AND instr(flags, '\"other\"') = 0),"
        " sum(instr(flags, '\"other\"') > 0)"
        " FROM footage WHERE seen_session_id = ? AND derived_from = ''"
        " AND NOT (here = 'no' AND there = 'gone')",  # lost: nothing on the camera to wait for
        (session_id,),
    ).fetchone()
    refused = connection.execute(
        "SELECT count(*) FROM transfer JOIN footage ON footage.id = transfer.clip_id"
        " WHERE transfer.state = 'refused' AND is_final AND seen_session_id = ?",
        (session_id,),
    ).fetchone()
    return Tally(*(value or 0 for value in (*row, *refused)))


def plain(text: str) -> str:
    """Give a camera's own text so that it deceives no reader and no terminal."""
    return shown(text.encode("utf-8", "surrogateescape"))


def short(officer: str) -> str:
    """Give an officer's name as it stands at a slot."""
    name = plain(officer)
    return name if len(name) <= SHORT else f"{name[: SHORT - 1]}…"


def _is_full(facts: Facts, config: DockConfig) -> bool:
    """Whether a camera has too little room for a shift, and waiting will give it some."""
    if facts.free_percent is None or not config.wipe.enabled or not facts.files_to_wipe:
        return False
    return facts.free_percent < config.min_free_percent


def _officer(docking: Docking | None, called: str, config: DockConfig) -> str:
    if config.officers.names_hidden:
        return ""
    return short(called or ("" if docking is None else docking.officer))


def _footage(state: State, docking: Docking | None, tally: Tally) -> str:
    if docking is None:
        return ""
    if docking.sealed_utc_ns is None:  # there may be more on it than was listed so far
        return "on_camera" if tally.files or (state in CALLING and docking.camera) else ""
    if not tally.files:
        return "none"
    if tally.files_safe < tally.files:
        return "on_camera"
    return "at_centre" if tally.files_signed == tally.files else "in_dock"


def _notes(docking: Docking | None, tally: Tally, config: DockConfig) -> Sequence[str]:
    if docking is None:
        return ()
    is_unknown = config.firmware and docking.firmware and docking.firmware not in config.firmware
    holds = {
        Code.CLOCK_FAR: abs(docking.clock_offset_ms or 0) > DAY_MS,
        Code.FIRMWARE: is_unknown,
        Code.OTHER_FILES: tally.files_other,
        Code.CENTRE_REFUSES: tally.files_refused,
    }
    return [str(code) for code, does in holds.items() if does]
