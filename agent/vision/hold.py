"""Holds: recordings that the loop must leave alone until somebody lets them go."""

from agent.core.clock import Clock
from agent.core.store import Store
from agent.vision.footage import Span
from agent.vision.recovery import Custody


def place(store: Store, clock: Clock, custody: Custody, span: Span, reason: str) -> str:
    """Keep what is recorded of a span, now and later; gives the hold's id.

    Raises:
        StorageError: the database refuses.
    """
    hold_id = clock.new_id()
    values = (hold_id, span.camera, span.start_utc_ns, span.end_utc_ns, reason, clock.utc_ns())
    detail = {
        "camera": span.camera,
        "start_utc_ms": span.start_utc_ns // 1_000_000,
        "end_utc_ms": span.end_utc_ns // 1_000_000,
        "reason": reason,
    }
    store.write(
        lambda connection: (
            connection.execute("INSERT INTO hold VALUES (?, ?, ?, ?, ?, ?)", values),
            custody(connection, "hold.placed", hold_id, detail),
        )
    )
    return hold_id


def release(store: Store, custody: Custody, hold_id: str, reason: str) -> bool:
    """Let the recordings of a hold go; gives whether there was one.

    Raises:
        StorageError: the database refuses.
    """
    query = "DELETE FROM hold WHERE id = ?"
    return store.write(
        lambda connection: bool(
            connection.execute(query, (hold_id,)).rowcount
            and custody(connection, "hold.released", hold_id, {"reason": reason})
        )
    )
