"""Files of cameras as rows: what is on the dock, what is still on the camera, what may go."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.core.clock import Clock
from agent.core.store import Store
from agent.delivery.ledger import Handover, enqueue

Custody = Callable[[sqlite3.Connection, str, str, Mapping[str, object]], object]
"""Appends (kind, subject, detail) to the custody log inside a transaction."""


@dataclass(frozen=True, slots=True)
class Footage:
    """One file of a camera."""

    id: str
    session_id: str
    camera: str
    name: str  # path on the camera, as data
    size_bytes: int
    mtime_ns: int
    is_marked: int
    here: str  # no, sealed, receipted, deleted
    there: str  # yes, wiping, wiped, gone
    kept_because: str
    sha256: str
    path: str  # hand-over's folder, relative to the state directory
    media_type: str
    duration_ms: int | None  # None: not known
    is_playable: int | None  # None: not looked at yet
    flags: str  # JSON
    category: str
    same_as: str  # another one with the very same bytes; empty: none
    sealed_utc_ns: int | None

    @property
    def evidence_id(self) -> str:
        """The hand-over that holds its bytes."""
        return self.same_as or self.id

    @property
    def is_video(self) -> bool:
        """Whether a player should open it."""
        return self.media_type.startswith("video/")

    @property
    def flag_list(self) -> Sequence[str]:
        """What is odd about it."""
        found: Sequence[str] = json.loads(self.flags)
        return found


@dataclass(frozen=True, slots=True)
class Found:
    """A file as an inventory tells it."""

    name: str
    size_bytes: int
    mtime_ns: int
    is_marked: bool


@dataclass(frozen=True, slots=True)
class SealedFile:
    """What is written down of a file once it is sealed."""

    footage_id: str
    handover: Handover
    sha256: str
    media_type: str
    flags: Sequence[str]
    duration_ms: int | None = None
    unread: Sequence[tuple[int, int]] = ()  # first byte and the one after the last: zeros here


UNPLAYABLE, RESCUE_SETTLED = "unplayable", "rescue_settled"
_IS_RECEIPTED = """(
    EXISTS (SELECT 1 FROM transfer WHERE clip_id = coalesce(nullif(same_as, ''), footage.id))
    AND NOT EXISTS (SELECT 1 FROM transfer
        WHERE clip_id = coalesce(nullif(same_as, ''), footage.id) AND state != 'receipted')
)"""
_NOW_RECEIPTED = (
    "UPDATE footage SET here = 'receipted', receipted_utc_ns = ?"  # noqa: S608 - constants
    f" WHERE here = 'sealed' AND {_IS_RECEIPTED}"
)
_NO_MORE_RECEIPTED = (
    "UPDATE footage SET here = 'sealed', receipted_utc_ns = NULL"  # noqa: S608 - constants
    f" WHERE here = 'receipted' AND NOT {_IS_RECEIPTED}"
)
_UNSETTLED = (
    f"SELECT 1 FROM footage WHERE (here = 'sealed' AND {_IS_RECEIPTED})"  # noqa: S608 - constants
    f" OR (here = 'receipted' AND NOT {_IS_RECEIPTED}) LIMIT 1"
)
_COLUMNS = ", ".join(Footage.__dataclass_fields__)


class FootageRows:
    """Reads and writes them; safe from any thread."""

    def __init__(self, store: Store, clock: Clock, custody: Custody) -> None:
        self._store = store
        self._clock = clock
        self._custody = custody

    def on_camera(self, camera: str) -> list[Footage]:
        """Give what a camera had when it was seen last."""
        return self._query("camera = ? AND there IN ('yes', 'wiping')", camera)

    def of_session(self, session_id: str) -> list[Footage]:
        """Give all that was seen in a docking."""
        return self._query("seen_session_id = ?", session_id)

    def find(self, footage_id: str) -> Footage | None:
        """Give one."""
        return next(iter(self._query("id = ?", footage_id)), None)

    def found(self, session_id: str, camera: str, new: Sequence[Found]) -> None:
        """Write down files that were not known."""
        rows = [
            (
                *(self._clock.new_id(), session_id, session_id, camera),
                *(item.name, item.size_bytes, item.mtime_ns, item.is_marked),
            )
            for item in new
        ]
        self._store.write(
            lambda connection: connection.executemany(
                "INSERT INTO footage (id, session_id, seen_session_id, camera, name, size_bytes,"
                " mtime_ns, is_marked) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
        )

    def seen(self, session_id: str, ids: Iterable[str]) -> None:
        """Write that files are on their camera still: whatever kept them is looked at anew."""
        rows = [(session_id, footage_id) for footage_id in ids]
        self._store.write(
            lambda connection: connection.executemany(
                "UPDATE footage SET seen_session_id = ?, there = 'yes', kept_because = ''"
                " WHERE id = ?",
                rows,
            )
        )

    def gone(self, files: Sequence[Footage]) -> None:
        """Write that files are not on their camera any more: wiped by us, or by somebody else."""

        def change(connection: sqlite3.Connection) -> None:
            for item in files:
                if item.there == "wiping":
                    self._wiped_in(connection, item)
                    continue
                connection.execute("UPDATE footage SET there = 'gone' WHERE id = ?", (item.id,))
                kind = "footage.lost" if item.here == "no" else "footage.gone"
                self._custody(connection, kind, item.id, _facts(item))

        self._store.write(change)

    def sealed(self, file: SealedFile) -> None:
        """Write that a file is sealed, and have it go to the centre."""
        self._store.write(lambda connection: self._sealed_in(connection, file))

    def _sealed_in(self, connection: sqlite3.Connection, file: SealedFile) -> None:
        handover = file.handover
        connection.execute(
            "UPDATE footage SET here = 'sealed', sha256 = ?, path = ?, media_type = ?,"
            " flags = ?, duration_ms = ?, sealed_utc_ns = ? WHERE id = ?",
            (
                *(file.sha256, str(handover.folder), file.media_type),
                *(json.dumps(list(file.flags)), file.duration_ms, self._clock.utc_ns()),
                file.footage_id,
            ),
        )
        enqueue(connection, handover, self._clock)
        detail: dict[str, object] = {
            "files": {item.name: item.sha256 for item in handover.files},
            "flags": list(file.flags),
        }
        if file.unread:
            detail["unread"] = [list(span) for span in file.unread]
        self._custody(connection, "footage.sealed", file.footage_id, detail)

    def twin(self, item: Footage, sha256: str) -> Footage | None:
        """Give a file of the same camera with the same bytes whose copy is here."""
        same = self._query("camera = ? AND sha256 = ? AND here != 'deleted'", item.camera, sha256)
        return next((i for i in same if i.id != item.id and not i.same_as), None)

    def same(self, item: Footage, twin: Footage, flags: Sequence[str]) -> None:
        """Write that a file's bytes are sealed already, as another one's."""

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE footage SET here = 'sealed', same_as = ?, sha256 = ?, path = ?, flags = ?,"
                " sealed_utc_ns = ? WHERE id = ?",
                (
                    *(twin.id, twin.sha256, twin.path, json.dumps(list(flags))),
                    *(self._clock.utc_ns(), item.id),
                ),
            )
            self._custody(connection, "footage.same", item.id, {**_facts(item), "as": twin.id})

        self._store.write(change)

    def unprobed(self) -> list[Footage]:
        """Give videos that nobody has tried to open."""
        return self._query(
            "here IN ('sealed', 'receipted') AND is_playable IS NULL AND same_as = ''"
        )

    def broken(self) -> list[Footage]:
        """Give videos that no player opens and whose rescue is not settled."""
        return self._query(
            "here IN ('sealed', 'receipted') AND is_playable = 0 AND flags LIKE '%\"unplayable\"%'"
            " AND flags NOT LIKE '%\"rescue_settled\"%'"
        )

    def probed(self, item: Footage, *, is_playable: bool, duration_ms: int | None) -> None:
        """Write whether a player opens a file."""

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE footage SET is_playable = ?, duration_ms = ? WHERE id = ? OR same_as = ?",
                (is_playable, duration_ms, item.id, item.id),
            )
            if item.is_video and not is_playable:
                _flag_in(connection, item.id, UNPLAYABLE)

        self._store.write(change)

    def rescued(self, original: Footage, file: SealedFile) -> None:
        """Write down the playable copy of a broken file, and have it go to the centre."""

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR IGNORE INTO footage (id, session_id, seen_session_id, camera, name,"
                " size_bytes, mtime_ns, there, is_playable, derived_from) VALUES"
                " (?, ?, ?, ?, ?, ?, ?, 'gone', 1, ?)",
                (
                    *(file.footage_id, original.session_id, original.session_id, original.camera),
                    *(original.name, file.handover.files[0].size_bytes, original.mtime_ns),
                    original.id,
                ),
            )
            self._sealed_in(connection, file)
            _flag_in(connection, original.id, RESCUE_SETTLED)

        self._store.write(change)

    def flag(self, footage_id: str, flag: str) -> None:
        """Add to what is odd about a file."""
        self._store.write(lambda connection: _flag_in(connection, footage_id, flag))

    def settle(self) -> None:
        """Bring `here` up to what the transfers say; a receipt may also have been taken back."""
        now_ns = self._clock.utc_ns()

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(_NOW_RECEIPTED, (now_ns,))
            connection.execute(_NO_MORE_RECEIPTED)

        with self._store.reading() as connection:
            due = connection.execute(_UNSETTLED).fetchone()
        if due is not None:
            self._store.write(change)

    def receipts(self, footage_id: str) -> list[Mapping[str, object]]:
        """Give the transfers of a file: name, sha256, size_bytes, state and receipt."""
        with self._store.reading() as connection:
            rows = connection.execute(
                "SELECT fid, name, sha256, size_bytes, state, receipt, is_final FROM transfer"
                " WHERE clip_id = ?",
                (footage_id,),
            ).fetchall()
        return [dict(row) for row in rows]

    def wiping(self, item: Footage) -> None:
        """Write that a file is about to be deleted from its camera."""
        self._store.write(
            lambda connection: connection.execute(
                "UPDATE footage SET there = 'wiping' WHERE id = ?", (item.id,)
            )
        )

    def wiped(self, files: Sequence[Footage]) -> None:
        """Write that files were deleted and are not listed any more."""

        def change(connection: sqlite3.Connection) -> None:
            for item in files:
                self._wiped_in(connection, item)

        if files:
            self._store.write(change)

    def kept(self, item: Footage, reason: str) -> None:
        """Write why a file is not wiped."""
        self._store.write(
            lambda connection: connection.execute(
                "UPDATE footage SET there = 'yes', kept_because = ? WHERE id = ?", (reason, item.id)
            )
        )

    def _wiped_in(self, connection: sqlite3.Connection, item: Footage) -> None:
        connection.execute(
            "UPDATE footage SET there = 'wiped', wiped_utc_ns = ?, kept_because = '' WHERE id = ?",
            (self._clock.utc_ns(), item.id),
        )
        rows = connection.execute(
            "SELECT receipt FROM transfer WHERE clip_id = ? AND receipt IS NOT NULL",
            (item.evidence_id,),
        )
        keyids = sorted({str(json.loads(row["receipt"])["keyid"]) for row in rows})
        self._custody(connection, "footage.wiped", item.id, {**_facts(item), "keyids": keyids})

    def _query(self, condition: str, *values: str) -> list[Footage]:
        with self._store.reading() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM footage WHERE {condition}"  # noqa: S608 - our own words
                " AND derived_from = '' ORDER BY is_marked DESC, mtime_ns DESC, name",
                values,
            ).fetchall()
        return [Footage(*row) for row in rows]


def _facts(item: Footage) -> dict[str, object]:
    return {
        "camera": item.camera,
        "name": item.name,
        "size_bytes": item.size_bytes,
        "sha256": item.sha256,
    }


def _flag_in(connection: sqlite3.Connection, footage_id: str, flag: str) -> None:
    row = connection.execute("SELECT flags FROM footage WHERE id = ?", (footage_id,)).fetchone()
    flags = json.loads(row["flags"])
    if flag not in flags:
        connection.execute(
            "UPDATE footage SET flags = ? WHERE id = ?", (json.dumps([*flags, flag]), footage_id)
        )
