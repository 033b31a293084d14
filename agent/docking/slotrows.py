"""Slots and dockings as rows: what a slot's machine remembers over a power cut."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.core.clock import Clock
from agent.core.dock import Battery, ClockReading, Identity
from agent.core.store import Store
from agent.docking.states import State

MOST_DETAIL = 512


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a slot's work stands."""

    slot: str
    state: State = State.EMPTY
    code: str = ""
    session_id: str = ""
    plug: str = ""
    since_utc_ns: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Docking:
    """One camera in one slot, from docking to taking."""

    id: str
    slot: str
    camera: str
    serial: str
    model: str
    firmware: str
    officer: str
    officer_source: str
    started_utc_ns: int
    ended_utc_ns: int | None
    clock_offset_ms: int | None
    clock_rtt_ms: int | None
    battery_percent: int | None
    usb_id: str
    quarantine: str
    marks: str
    ignored: str
    sealed_utc_ns: int | None
    manifest_sha256: str

    @property
    def identity(self) -> Identity:
        """Who the camera said it is."""
        return Identity(self.serial, self.model, self.firmware)

    @property
    def mark_names(self) -> Sequence[str]:
        """Recordings that the officer marked."""
        found: Sequence[str] = json.loads(self.marks)
        return found

    @property
    def left_out(self) -> Sequence[Mapping[str, str]]:
        """What was not taken: name and reason."""
        found: Sequence[Mapping[str, str]] = json.loads(self.ignored)
        return found


_SLOT = "slot, state, code, session_id, plug, since_utc_ns, detail"
_DOCKING = ", ".join(Docking.__dataclass_fields__)


class SlotRows:
    """Reads and writes them; safe from any thread."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def slot(self, name: str) -> Slot:
        """Give a slot as it was written last; an empty one if it never was."""
        with self._store.reading() as connection:
            row = connection.execute(
                f"SELECT {_SLOT} FROM dock_slot WHERE slot = ?",  # noqa: S608 - constant columns
                (name,),
            ).fetchone()
        return Slot(name) if row is None else _slot(row)

    def docking(self, session_id: str) -> Docking | None:
        """Give a docking."""
        with self._store.reading() as connection:
            row = connection.execute(
                f"SELECT {_DOCKING} FROM dock_session WHERE id = ?",  # noqa: S608 - constant columns
                (session_id,),
            ).fetchone()
        return None if row is None else Docking(*row)

    def put(self, slot: Slot) -> Slot:
        """Write where a slot stands."""
        return self._store.write(lambda connection: self.put_in(connection, slot))

    def put_in(self, connection: sqlite3.Connection, slot: Slot) -> Slot:
        """Write where a slot stands, inside a transaction."""
        connection.execute(
            f"INSERT OR REPLACE INTO dock_slot ({_SLOT}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            (
                *(slot.slot, str(slot.state), slot.code, slot.session_id, slot.plug),
                *(slot.since_utc_ns, slot.detail[:MOST_DETAIL]),
            ),
        )
        return slot

    def begin(self, slot: str, plug: str, usb_id: str) -> Slot:
        """Write that a camera was docked."""
        now_ns = self._clock.utc_ns()
        begun = Slot(slot, State.DETECTED, "", self._clock.new_id(), plug, now_ns)

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO dock_session (id, slot, usb_id, started_utc_ns) VALUES (?, ?, ?, ?)",
                (begun.session_id, slot, usb_id, now_ns),
            )
            self.put_in(connection, begun)

        self._store.write(change)
        return begun

    def identified(
        self, session_id: str, camera: str, identity: Identity, officer: tuple[str, str]
    ) -> None:
        """Write who was docked, and who carried it: name and source."""
        self._set(
            session_id,
            camera=camera,
            serial=identity.serial,
            model=identity.model,
            firmware=identity.firmware,
            officer=officer[0],
            officer_source=officer[1],
        )

    def clock_read(self, session_id: str, reading: ClockReading) -> None:
        """Write a camera's clock as it was before it was set; the first reading counts."""
        self._store.write(
            lambda connection: connection.execute(
                "UPDATE dock_session SET clock_offset_ms = ?, clock_rtt_ms = ?"
                " WHERE id = ? AND clock_offset_ms IS NULL",
                (reading.offset_ms, reading.rtt_ms, session_id),
            )
        )

    def battery(self, session_id: str, battery: Battery) -> None:
        """Write a camera's charge."""
        self._set(session_id, battery_percent=battery.percent)

    def quarantine(self, session_id: str, code: str) -> None:
        """Write why nothing of a docking is wiped; the first reason counts."""
        self._store.write(
            lambda connection: connection.execute(
                "UPDATE dock_session SET quarantine = ? WHERE id = ? AND quarantine = ''",
                (code, session_id),
            )
        )

    def marked(self, session_id: str, marks: Sequence[str]) -> None:
        """Write which recordings the officer marked."""
        self._set(session_id, marks=json.dumps(list(marks)))

    def left_out(self, session_id: str, ignored: Sequence[Mapping[str, str]]) -> None:
        """Write what was not taken, and why."""
        self._set(session_id, ignored=json.dumps(list(ignored)))

    def end(self, slot: Slot, state: State, code: str = "") -> Slot:
        """Write that a camera was taken."""
        now_ns = self._clock.utc_ns()
        is_awaited = state is State.PULLED
        ended = Slot(
            slot.slot,
            state,
            code,
            slot.session_id if is_awaited else "",
            "",
            now_ns,
        )

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE dock_session SET ended_utc_ns = ? WHERE id = ? AND ended_utc_ns IS NULL",
                (now_ns, slot.session_id),
            )
            self.put_in(connection, ended)

        self._store.write(change)
        return ended

    def elsewhere(self, camera: str, slot: str) -> str:
        """Give another slot in which the same camera seems to hang; empty: none."""
        with self._store.reading() as connection:
            row = connection.execute(
                "SELECT s.slot FROM dock_slot s JOIN dock_session d ON d.id = s.session_id"
                " WHERE d.camera = ? AND s.slot != ? AND d.ended_utc_ns IS NULL",
                (camera, slot),
            ).fetchone()
        return "" if row is None else str(row["slot"])

    def found_again(self, camera: str) -> None:
        """Let go of slots that wait for a camera: it hangs somewhere else now."""

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE dock_slot SET state = 'empty', code = '', session_id = '', detail = ''"
                " WHERE state = 'pulled' AND session_id IN"
                " (SELECT id FROM dock_session WHERE camera = ?)",
                (camera,),
            )

        self._store.write(change)

    def _set(self, session_id: str, **values: object) -> None:
        names = ", ".join(f"{name} = ?" for name in values)
        self._store.write(
            lambda connection: connection.execute(
                f"UPDATE dock_session SET {names} WHERE id = ?",  # noqa: S608 - our own names
                (*values.values(), session_id),
            )
        )


def _slot(row: sqlite3.Row) -> Slot:
    name, state, *rest = row
    return Slot(name, State(state), *rest)
