"""The files on their way to the centre, as rows: waiting, receipted or refused; none is forgotten.

A file is waiting until the centre's signed receipt for its hash and size is in the row. The row,
the clip it completes and the custody entries change in one transaction.
"""

import json
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.core import log, wire
from agent.core.clock import NS_PER_MS, Clock
from agent.core.errors import MalformedMessage
from agent.core.model import Lane, Message
from agent.core.store import Store
from agent.core.wire import Json

SMALL_FILE_BYTES = 256 * 1024  # snapshots and paths go before clips
REFUSED_KIND = "state/files"
LOST_KIND = "gap/file"
REFUSED, FOR_GOOD = "refused", "refused_for_good"
HARMS = ("missing", "truncated", "altered", "unreadable")  # what becomes of a file here
ANY_SIZE = 1 << 62
MANIFEST_NAME = "manifest.json"  # of the folder that was sealed
_REASON_LETTERS = 256
_DETAIL_LETTERS = 512
_ENTRIES = {why: f"file.{why}" for why in HARMS}
_COLUMNS = "fid, clip_id, path, name, size_bytes, sha256, leaf_root, manifest, event_ids, state"

_log = log.get(__name__)

Custody = Callable[[sqlite3.Connection, str, str, Mapping[str, object]], object]
"""Appends (kind, subject, detail) to the custody log inside a transaction."""

Tell = Callable[[sqlite3.Connection, Message], object]
"""Puts a message into the outbox inside a transaction."""


@dataclass(frozen=True, slots=True)
class OutgoingFile:
    """One file of a hand-over, as its manifest describes it."""

    name: str
    size_bytes: int
    sha256: str
    leaf_root: str


@dataclass(frozen=True, slots=True)
class Handover:
    """A sealed folder whose files go to the centre."""

    clip_id: str
    folder: Path  # relative to the state directory
    files: Sequence[OutgoingFile]
    manifest: Mapping[str, object]  # the signed envelope
    event_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Transfer:
    """One file towards the centre."""

    fid: str
    clip_id: str
    path: Path  # relative to the state directory
    name: str
    size_bytes: int
    sha256: str
    leaf_root: str
    manifest: Json
    event_ids: tuple[str, ...]
    state: str


def enqueue(connection: sqlite3.Connection, handover: Handover, clock: Clock) -> tuple[str, ...]:
    """Add a transfer for every file, inside the transaction that seals them; gives their fids."""
    fids = []
    created_utc_ns = clock.utc_ns()
    for file in handover.files:
        fids.append(clock.new_id())
        connection.execute(
            "INSERT INTO transfer (fid, clip_id, path, name, size_bytes, sha256, leaf_root,"
            " manifest, event_ids, state, created_utc_ns)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'waiting', ?)",
            (
                *(fids[-1], handover.clip_id, str(handover.folder / file.name), file.name),
                *(file.size_bytes, file.sha256, file.leaf_root),
                *(_json(handover.manifest), json.dumps(list(handover.event_ids)), created_utc_ns),
            ),
        )
    return tuple(fids)


class Ledger:
    """The transfer rows of a box; safe from any thread."""

    def __init__(
        self, store: Store, state_dir: Path, clock: Clock, custody: Custody, tell: Tell
    ) -> None:
        self._store = store
        self._state_dir = state_dir
        self._clock = clock
        self._custody = custody
        self._tell = tell

    def file(self, transfer: Transfer) -> Path:
        """Give the place of a transfer's file."""
        return self._state_dir / transfer.path

    def waiting(
        self, limit: int, exclude: Collection[str] = (), below_bytes: int = ANY_SIZE
    ) -> tuple[Transfer, ...]:
        """Give the next files to send: small ones first, then the oldest."""
        marks = ",".join("?" * len(exclude))
        with self._store.reading() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM transfer WHERE state = 'waiting'"  # noqa: S608 - marks only
                f" AND fid NOT IN ({marks}) AND size_bytes < ?"
                " ORDER BY size_bytes > ?, created_utc_ns, size_bytes, fid LIMIT ?",
                (*exclude, below_bytes, SMALL_FILE_BYTES, limit),
            ).fetchall()
        return tuple(_transfer(row, self._state_dir) for row in rows)

    def find(self, fid: str) -> Transfer | None:
        """Give one transfer."""
        with self._store.reading() as connection:
            row = connection.execute(
                f"SELECT {_COLUMNS} FROM transfer WHERE fid = ?",  # noqa: S608 - constant columns
                (fid,),
            ).fetchone()
        return None if row is None else _transfer(row, self._state_dir)

    def refuse(self, transfer: Transfer, reason: str, why: str = REFUSED) -> None:
        """Stop sending a file, visibly, here and in the message `state/files`; it stays.

        Args:
            transfer: which one.
            reason: in words.
            why: REFUSED, or FOR_GOOD: it then waits again only when a person says so; or what has
                become of the file here, as `sending.Harmed` names it: the centre is told that too.
        """
        text = reason[:_REASON_LETTERS].encode(errors="replace").decode()

        def change(connection: sqlite3.Connection) -> bool:
            before = connection.execute(
                "SELECT reason FROM transfer WHERE fid = ? AND state = 'waiting'", (transfer.fid,)
            ).fetchone()
            if before is None:
                return False
            connection.execute(
                "UPDATE transfer SET state = 'refused', reason = ?, is_final = ? WHERE fid = ?",
                (text, why == FOR_GOOD, transfer.fid),
            )
            if before["reason"] == text:  # as the last time it was tried
                return False
            facts = _facts(transfer, reason=text)
            self._custody(connection, _ENTRIES.get(why, "file.refused"), transfer.fid, facts)
            self._tell(connection, self._message(transfer, why, text))
            if why in HARMS:
                self._tell(connection, lost(transfer, why, text))
            return True

        if self._store.write(change):
            _log.error("file not delivered", fid=transfer.fid, name=transfer.name, reason=text)

    def retry_refused(self) -> int:
        """Let every refused file wait again but those refused for good; gives how many."""
        return self._store.write(
            lambda connection: (
                connection.execute(
                    "UPDATE transfer SET state = 'waiting' WHERE state = 'refused' AND NOT is_final"
                ).rowcount
            )
        )

    def retry(self, fid: str, by: str) -> Transfer:
        """Let one refused file wait again because a person says so.

        Raises:
            MalformedMessage: there is no such file, or it is not refused.
        """
        transfer = self.find(fid)
        if transfer is None or transfer.state != "refused":
            state = "unknown" if transfer is None else transfer.state
            raise MalformedMessage(f"file {fid[:64]!r}: {state}; allowed: one that is refused")

        def change(connection: sqlite3.Connection) -> None:
            changed = connection.execute(
                "UPDATE transfer SET state = 'waiting', is_final = 0, reason = ''"
                " WHERE fid = ? AND state = 'refused'",
                (fid,),
            ).rowcount
            if changed:
                self._custody(connection, "file.retried", fid, _facts(transfer, by=by))

        self._store.write(change)
        return transfer

    def tell_centre(self, state: str, detail: str) -> None:
        """Say in `state/files` how the centre takes files: `full`, or `delivering` again."""
        message = self._said(state, detail)
        self._store.write(lambda connection: self._tell(connection, message))

    def receipted(self, transfer: Transfer, receipt: Json) -> bool:
        """Store a checked receipt with all that follows from it; false if it was there before."""

        def change(connection: sqlite3.Connection) -> bool:
            changed = connection.execute(
                "UPDATE transfer SET state = 'receipted', reason = '', receipt = ?"
                " WHERE fid = ? AND state != 'receipted'",
                (_json(receipt), transfer.fid),
            ).rowcount
            if changed:
                self._custody(
                    connection,
                    "file.receipted",
                    transfer.fid,
                    _facts(transfer, receiver=receipt["receiver"], keyid=receipt["keyid"]),
                )
                self._complete(connection, transfer.clip_id)
            return bool(changed)

        return self._store.write(change)

    def backlog(self) -> tuple[int, int]:
        """Give how many files wait, and their bytes."""
        with self._store.reading() as connection:
            row = connection.execute(
                "SELECT count(*) AS files, coalesce(sum(size_bytes), 0) AS bytes"
                " FROM transfer WHERE state = 'waiting'"
            ).fetchone()
        return int(row["files"]), int(row["bytes"])

    def _complete(self, connection: sqlite3.Connection, clip_id: str) -> None:
        changed = connection.execute(
            "UPDATE clip SET state = 'receipted' WHERE id = ? AND state = 'sealed' AND NOT EXISTS"
            " (SELECT 1 FROM transfer WHERE clip_id = clip.id AND state != 'receipted')",
            (clip_id,),
        ).rowcount
        if changed:
            self._custody(connection, "clip.receipted", clip_id, {})
            _log.info("clip receipted", clip_id=clip_id)

    def _message(self, transfer: Transfer, state: str, reason: str) -> Message:
        return self._said(state, f"{transfer.fid} {transfer.name}: {reason}")

    def _said(self, state: str, detail: str) -> Message:
        since_utc_ms = max(0, self._clock.utc_ns() // NS_PER_MS)
        body = {"state": state, "since_utc_ms": since_utc_ms, "detail": detail[:_DETAIL_LETTERS]}
        return Message(Lane.STATE, REFUSED_KIND, body, is_retained=True)


def lost(transfer: Transfer, why: str, reason: str) -> Message:
    """Give the message that a file will not come, or not as it was sealed, and why."""
    body = {
        "fid": transfer.fid,
        "clip_id": transfer.clip_id,
        "name": transfer.name,
        "sha256": transfer.sha256,
        "size_bytes": transfer.size_bytes,
        "event_ids": list(transfer.event_ids),
        "why": why,
        "detail": reason,
    }
    return Message(Lane.STATE, LOST_KIND, body, needs_receipt=True)


def _facts(transfer: Transfer, **more: object) -> Mapping[str, object]:
    return {
        "clip_id": transfer.clip_id,
        "name": transfer.name,
        "sha256": transfer.sha256,
        "size_bytes": transfer.size_bytes,
        **more,
    }


def _json(document: Mapping[str, object]) -> str:
    return wire.encode(document).decode()


def _transfer(row: sqlite3.Row, state_dir: Path) -> Transfer:
    """Read a row; what a disk has made of one row must not keep the others waiting."""
    return Transfer(
        fid=row["fid"],
        clip_id=row["clip_id"],
        path=Path(row["path"]),
        name=row["name"],
        size_bytes=row["size_bytes"],
        sha256=row["sha256"],
        leaf_root=row["leaf_root"],
        manifest=_manifest(row["manifest"], state_dir / row["path"]),
        event_ids=_event_ids(row["event_ids"]),
        state=row["state"],
    )


def _manifest(stored: str, file: Path) -> Json:
    """Give the envelope; of a damaged one the copy that was sealed beside the file.

    An empty one if that is not there either: the centre refuses it, and the refusal is told.
    """
    with suppress(ValueError):
        if isinstance(found := json.loads(stored), dict):
            return found
    with suppress(OSError, ValueError):
        if isinstance(found := json.loads((file.parent / MANIFEST_NAME).read_bytes()), dict):
            return found
    return {}


def _event_ids(stored: str) -> tuple[str, ...]:
    """Give the ids, none if they cannot be read: the manifest has them too."""
    with suppress(ValueError):
        if isinstance(found := json.loads(stored), list):
            return tuple(item for item in found if isinstance(item, str))
    return ()
