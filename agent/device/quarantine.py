"""Messages that were set aside: sent again or dropped by hand, and custody knows by whom.

A person decides; what is dropped is told to the centre, in numbers, as `dropped`.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent.core.errors import MalformedMessage
from agent.core.store import Store
from agent.core.wire import Json
from agent.delivery import eviction, removals
from agent.delivery.outbox import Outbox
from agent.device.requests import Do, Request

RETRY, DROP = "outbox.retry", "outbox.drop"
MOST_IDS = 1000  # of one request
MOST_WORDS = 256  # letters of a reason
MOST_NAMED = 10  # ids in a refusal

Custody = Callable[[sqlite3.Connection, str, str, Mapping[str, object]], object]
"""Appends to the custody log inside a transaction: kind, subject, detail."""

_ROWS = "SELECT * FROM outbox WHERE quarantine IS NOT NULL"


class Quarantine:
    """The messages that were set aside.

    Args:
        store: with the outbox.
        outbox: puts what tells the centre of dropped ones.
        custody: notes who did what, and why.
        again: told the ids of rows to be sent again.
    """

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        custody: Custody,
        again: Callable[[Sequence[int]], None],
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._custody = custody
        self._again = again

    @property
    def words(self) -> Mapping[str, Do]:
        """What people at the box may ask."""
        return {RETRY: self.retry, DROP: self.drop}

    def retry(self, request: Request) -> Json:
        """Give rows a new series of tries: those of `ids`, or the oldest if `all` is true.

        Raises:
            MalformedMessage: the args are not in order, or a row is not set aside.
            StorageError: the database refuses.
        """
        wanted = _ids(request.args)
        reason = _reason(request.args, is_needed=False)

        def change(connection: sqlite3.Connection) -> tuple[list[int], int]:
            rows = _found(connection, wanted)
            for row in rows:
                self._note(connection, "outbox.retried", row, request, reason)
                connection.execute(
                    "UPDATE outbox SET quarantine = NULL, tries = 0 WHERE id = ?", (row["id"],)
                )
            return [row["id"] for row in rows], _left(connection)

        ids, left = self._store.write(change)
        self._again(ids)
        return {"ids": ids, "left": left}

    def drop(self, request: Request) -> Json:
        """Delete the rows of `ids` unsent; those that need a receipt only if `evidence` is true.

        Raises:
            MalformedMessage: the args are not in order, no reason is given, a row is not set aside
                or needs a receipt.
            StorageError: the database refuses.
        """
        wanted = _ids(request.args)
        if wanted is None:
            raise MalformedMessage("drop: all; allowed: ids, each looked at by somebody")
        reason = _reason(request.args, is_needed=True)
        may_evidence = request.args.get("evidence") is True

        def change(connection: sqlite3.Connection) -> list[int]:
            rows = _found(connection, wanted)
            evidence = [row["id"] for row in rows if row["needs_receipt"]]
            if evidence and not may_evidence:
                raise MalformedMessage(
                    f"rows {_listed(evidence)}: evidence that the centre has not signed for;"
                    " allowed: --evidence, if it really is to be lost"
                )
            for row in rows:
                self._note(connection, "outbox.dropped", row, request, reason)
            gone = removals.note(connection, rows, removals.DROPPED)
            connection.executemany(
                "DELETE FROM outbox WHERE id = ?", [(row["id"],) for row in rows]
            )
            since_utc_ns = min(row["created_utc_ns"] for row in rows)
            for record in eviction.records("dropped", since_utc_ns, removals.together(gone)):
                self._outbox.put_in(connection, record)
            return [row["id"] for row in rows]

        return {"ids": self._store.write(change)}

    def _note(
        self,
        connection: sqlite3.Connection,
        kind: str,
        row: sqlite3.Row,
        request: Request,
        reason: str,
    ) -> None:
        detail = {
            "by": request.by,
            "via": "" if request.uid < 0 else f"user {request.uid}",
            "reason": reason,
            "row": row["id"],
            "lane": row["lane"],
            "boot": row["boot"],
            "seq": removals.number_of(row["payload"]),
            "topic": row["topic"],
            "size_bytes": len(row["payload"]),
            "sha256": hashlib.sha256(row["payload"]).hexdigest(),
            "is_evidence": bool(row["needs_receipt"]),
            "set_aside": row["quarantine"],
        }
        self._custody(connection, kind, row["message_id"], detail)


def _found(connection: sqlite3.Connection, wanted: Sequence[int] | None) -> list[sqlite3.Row]:
    """Give the rows in the order of their ids; MalformedMessage if one is not set aside."""
    if wanted is None:
        return connection.execute(f"{_ROWS} ORDER BY id LIMIT ?", (MOST_IDS,)).fetchall()
    rows = {}
    for row_id in sorted(set(wanted)):
        rows[row_id] = connection.execute(f"{_ROWS} AND id = ?", (row_id,)).fetchone()
    missing = [row_id for row_id, row in rows.items() if row is None]
    if missing:
        known = [row["id"] for row in connection.execute(f"{_ROWS} ORDER BY id")]
        raise MalformedMessage(
            f"rows {_listed(missing)}: not set aside; there are: {_listed(known) or 'none'}"
        )
    return list(rows.values())


def _left(connection: sqlite3.Connection) -> int:
    query = "SELECT count(*) FROM outbox WHERE quarantine IS NOT NULL"
    return int(connection.execute(query).fetchone()[0])


def _ids(args: Json) -> list[int] | None:
    """Give the ids of a request, None for all."""
    if args.get("all") is True and "ids" not in args:
        return None
    ids: Any = args.get("ids")
    is_list = isinstance(ids, list) and 0 < len(ids) <= MOST_IDS
    if not is_list or not all(type(item) is int and 0 < item < 1 << 62 for item in ids):
        raise MalformedMessage(f"ids: {str(ids)[:64]}; allowed: 1 to {MOST_IDS} ids of rows")
    found: list[int] = ids
    return found


def _reason(args: Json, *, is_needed: bool) -> str:
    reason = args.get("reason", "")
    is_good = isinstance(reason, str) and len(reason) <= MOST_WORDS
    if not is_good or (reason and not reason.isprintable()):
        raise MalformedMessage(f"reason: allowed: up to {MOST_WORDS} letters, on one line")
    if is_needed and not reason.strip():
        raise MalformedMessage(f"reason is missing; allowed: 1 to {MOST_WORDS} letters")
    return str(reason)


def _listed(ids: Sequence[int]) -> str:
    more = f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else ""
    return ", ".join(str(row_id) for row_id in ids[:MOST_NAMED]) + more
