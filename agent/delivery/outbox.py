"""The durable queue to the centre: what `put` returned survives a power cut.

A row leaves only when the broker has taken it (telemetry) or the centre has signed for it
(`needs_receipt`), or under the size bound: old telemetry is thinned, then goes (`eviction`), never
a row that needs a receipt. That leaves a gap record, the message `state/outbox`, which is sent.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

from agent.core import log, wire
from agent.core.clock import NS_PER_MS, Clock
from agent.core.errors import MalformedMessage, OutboxFull
from agent.core.model import Lane, Message, Row
from agent.core.store import Store
from agent.core.wire import Topics
from agent.delivery import eviction
from agent.delivery.clockstate import kernel_clock
from agent.delivery.eviction import HIGH_WATER
from agent.delivery.lanes import Ask, LaneReader

MAX_PAYLOAD_BYTES = 64 * 1024  # anything larger is a file
QUARANTINE = "quarantine"
DAMAGED = "damaged: "  # what the reason begins with of a row that nobody can read
TOO_LARGE = "bytes; broker takes"  # in the reason of a row that is more than a packet
_REASON_LETTERS = 256

_log = log.get(__name__)

ClockState = Callable[[], Mapping[str, object]]


class Outbox:
    """Messages of this box that the centre does not have yet; safe to use from any thread."""

    def __init__(
        self,
        store: Store,
        topics: Topics,
        clock: Clock,
        boot: int,
        clock_state: ClockState = kernel_clock,
    ) -> None:
        self._store = store
        self.topics = topics
        self._clock = clock
        self._boot = boot
        self._clock_state = clock_state

    def put(self, message: Message) -> str:
        """Add a message and return its id once it is on the disk.

        Raises:
            MalformedMessage: it does not fit its schema or is larger than 64 KiB.
            OutboxFull: the database has reached its bound and nothing in it may be evicted.
            StorageError: the disk refuses.
        """
        return self._store.write(lambda connection: self.put_in(connection, message))

    def put_in(self, connection: sqlite3.Connection, message: Message) -> str:
        """Add a message inside a transaction of the store; errors as for `put`."""
        self._make_room(connection, message)
        return self._insert(connection, message)

    def announce_in(self, connection: sqlite3.Connection, topic: str, payload: bytes) -> None:
        """Add a retained message for others than the centre, inside a transaction of the store.

        It goes as it is, without an envelope or a number, on a topic outside the device's own, and
        takes the place of one for the same topic that has not gone yet. Empty: remove it there.
        """
        connection.execute("DELETE FROM outbox WHERE topic = ?", (topic,))
        connection.execute(
            "INSERT INTO outbox (lane, message_id, topic, payload, created_utc_ns, boot,"
            " created_mono_ns, needs_receipt, is_retained) VALUES (?, ?, ?, ?, ?, ?, ?, 0, 1)",
            (
                *(Lane.STATE, self._clock.new_id(), topic, payload),
                *(self._clock.utc_ns(), self._boot, self._clock.mono_ns()),
            ),
        )

    @contextmanager
    def reading(self) -> Iterator[LaneReader]:
        """Give a reader that keeps one connection for many calls of `take`."""
        with self._store.reading() as connection:
            yield LaneReader(connection, self._clock, self._boot)

    def take(self, limit: int, exclude: Collection[int] = ()) -> tuple[Row, ...]:
        """Give up to `limit` rows in the order to send them; they stay in the outbox."""
        with self.reading() as reader:
            return reader.take(Ask(limit, exclude))

    def accept(self, row_ids: Iterable[int]) -> int:
        """Forget rows that the broker has taken, but none that needs a receipt; gives how many."""
        ids = [(row_id,) for row_id in row_ids]
        return self._store.write(
            lambda connection: (
                connection.executemany(
                    "DELETE FROM outbox WHERE id = ? AND needs_receipt = 0", ids
                ).rowcount
            )
        )

    def accept_receipt(self, message_ids: Iterable[str]) -> int:
        """Forget the rows whose messages the centre has signed for; gives how many."""
        ids = [(message_id,) for message_id in message_ids]
        return self._store.write(
            lambda connection: (
                connection.executemany("DELETE FROM outbox WHERE message_id = ?", ids).rowcount
            )
        )

    def keep(self, row_id: int) -> int:
        """Count a refusal of a row that stays; gives how many there were."""

        def count(connection: sqlite3.Connection) -> int:
            connection.execute("UPDATE outbox SET tries = tries + 1 WHERE id = ?", (row_id,))
            row = connection.execute("SELECT tries FROM outbox WHERE id = ?", (row_id,)).fetchone()
            return 0 if row is None else int(row["tries"])

        return self._store.write(count)

    def reject(self, row_id: int, reason: str) -> None:
        """Set a row aside, visibly: it is kept but not sent before `release`."""
        self._store.write(
            lambda connection: connection.execute(
                "UPDATE outbox SET quarantine = ? WHERE id = ?",
                (reason[:_REASON_LETTERS], row_id),
            )
        )
        _log.error("message set aside", row_id=row_id, reason=reason)

    def mended(self, row: Row) -> str:
        """Set the columns of a row right by what its message says; the next look reads them.

        Returns:
            Why that cannot be done; empty if all is well now.

        Raises:
            MalformedMessage: the message itself is damaged.
        """
        envelope = wire.decode("envelope", row.payload)
        _check_body(envelope)
        true = (envelope["id"], self.topics.up(envelope["kind"]))
        if true == (row.message_id, row.topic):
            return ""
        change = "UPDATE OR IGNORE outbox SET message_id = ?, topic = ? WHERE id = ?"
        values = (*true, row.row_id)
        if self._store.write(lambda connection: connection.execute(change, values).rowcount):
            return ""
        return f"{DAMAGED}message {true[0]} is in another row too"

    def release(self) -> list[int]:
        """Give what was set aside a new series of tries; gives the rows' ids.

        Not what the broker found too large: nothing but another limit can change that, and
        `release_fitting` looks at it. Nor what a disk has damaged: nothing can.
        """
        return self._release(
            "quarantine NOT LIKE ? AND quarantine NOT LIKE ?", (f"%{TOO_LARGE}%", f"{DAMAGED}%")
        )

    def release_fitting(self, most_bytes: int) -> list[int]:
        """Give rows a new series of tries that were too large and have a limit they fit now.

        Args:
            most_bytes: of topic and payload together.
        """
        return self._release(
            "quarantine LIKE ? AND length(CAST(topic AS BLOB)) + length(payload) <= ?",
            (f"%{TOO_LARGE}%", most_bytes),
        )

    def _release(self, which: str, values: tuple[object, ...]) -> list[int]:
        query = f"SELECT id FROM outbox WHERE quarantine IS NOT NULL AND {which}"  # noqa: S608 - ours
        with self._store.reading() as connection:
            ids = [(row["id"],) for row in connection.execute(query, values)]
        if ids:
            change = "UPDATE outbox SET quarantine = NULL, tries = 0 WHERE id = ?"
            self._store.write(lambda connection: connection.executemany(change, ids))
        return [row_id for (row_id,) in ids]

    def earlier(self) -> list[dict[str, object]]:
        """Give the last number that an earlier boot gave in each lane this one has not used yet."""
        with self._store.reading() as connection:
            rows = connection.execute("SELECT key, value FROM meta WHERE key LIKE 'seq/%'")
            given = [(row["key"].removeprefix("seq/"), *_count(row["value"])) for row in rows]
        return [
            {"boot": boot, "lane": lane, "last": last}
            for lane, boot, last in given
            if 0 < boot < self._boot
        ]

    def depths(self) -> dict[str, int]:
        """Give how many rows wait, by lane, and how many are set aside."""
        depths = {lane.value: 0 for lane in Lane} | {QUARANTINE: 0}
        with self._store.reading() as connection:
            for row in connection.execute(
                "SELECT iif(quarantine IS NULL, lane, 'quarantine') AS place, count(*) AS n"
                " FROM outbox GROUP BY quarantine IS NULL, lane"
            ):
                depths[row["place"]] += row["n"]
        return depths

    def _insert(self, connection: sqlite3.Connection, message: Message) -> str:
        message_id = self._clock.new_id()
        utc_ns, mono_ns = self._clock.utc_ns(), self._clock.mono_ns()
        envelope = {
            "sv": wire.SCHEMA_VERSION,
            "id": message_id,
            "device": self.topics.device,
            "boot": self._boot,
            "lane": message.lane.value,
            "seq": self._next_seq(connection, message.lane),
            "t_utc_ms": max(0, utc_ns // NS_PER_MS),
            "clock": dict(self._clock_state()),
            "mono_ms": mono_ns // NS_PER_MS,
            "kind": message.kind,
            "body": message.body,
        }
        connection.execute(
            "INSERT INTO outbox (lane, message_id, topic, payload, created_utc_ns, boot,"
            " created_mono_ns, needs_receipt, is_retained) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(message.lane, message_id, self.topics.up(message.kind), _encode(envelope)),
                *(utc_ns, self._boot, mono_ns, message.needs_receipt, message.is_retained),
            ),
        )
        return message_id

    def _next_seq(self, connection: sqlite3.Connection, lane: Lane) -> int:
        """Count within (boot, lane); part of the transaction, so a failed one burns no number."""
        key = f"seq/{lane.value}"
        row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        boot, last = (0, 0) if row is None else _count(row["value"])
        seq = last + 1 if boot == self._boot else 1
        connection.execute(
            "INSERT INTO meta (key, value) VALUES (?, ?)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, f"{self._boot} {seq}"),
        )
        return seq

    def _make_room(self, connection: sqlite3.Connection, message: Message) -> None:
        for record in eviction.make_room(connection, self.topics):
            self._insert(connection, record)
        if message.lane in eviction.LANES and eviction.fill(connection) >= HIGH_WATER:
            raise OutboxFull(
                f"outbox: {message.kind}: database {eviction.fill(connection):.0%} full and nothing"
                " left to evict; free space or raise delivery.max_db_mb"
            )


def _count(stored: str) -> tuple[int, int]:
    """Read boot and last number of a lane; zeros if the disk has changed it, so that it restarts.

    No number comes twice by that: a boot of which rows are read from the disk is over.
    """
    boot, _, last = stored.partition(" ")
    return (int(boot), int(last)) if boot.isdecimal() and last.isdecimal() else (0, 0)


def _check_body(envelope: Mapping[str, object]) -> None:
    group = str(envelope["kind"]).partition("/")[0]
    if group in wire.BODIES:
        wire.check(wire.BODIES[group], envelope["body"])


def _encode(envelope: Mapping[str, object]) -> bytes:
    try:
        payload = wire.encode(wire.check("envelope", envelope))
        _check_body(envelope)
    except (TypeError, ValueError) as error:
        raise MalformedMessage(f"message {envelope['kind']}: not JSON: {error}") from error
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise MalformedMessage(
            f"message {envelope['kind']}: {len(payload)} bytes; allowed: {MAX_PAYLOAD_BYTES},"
            " anything larger is a file"
        )
    return payload
