"""The custody log: append-only, each entry holds the hash of the one before, heads are signed."""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.core import wire
from agent.core.clock import NS_PER_MS, Clock
from agent.core.errors import ChainBroken
from agent.evidence.keys import DeviceKey, envelope

PAYLOAD_TYPE = "application/vnd.outpost.custody+json"
NO_HASH = "0" * 64


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry of the log; seq 0 before the first."""

    seq: int
    hash: str


def append(
    connection: sqlite3.Connection,
    clock: Clock,
    kind: str,
    subject: str,
    detail: Mapping[str, object],
) -> Head:
    """Add an entry inside a transaction of the store."""
    last = head(connection)
    entry = {
        "seq": last.seq + 1,
        "utc_ms": clock.utc_ns() // NS_PER_MS,
        "kind": kind,
        "subject": subject,
        "detail": dict(detail),
        "previous": last.hash,
    }
    digest = entry_hash(entry)
    connection.execute(
        "INSERT INTO custody (seq, utc_ms, kind, subject, detail, previous, hash)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            entry["seq"],
            entry["utc_ms"],
            kind,
            subject,
            wire.canonical(dict(detail)).decode(),
            last.hash,
            digest,
        ),
    )
    return Head(last.seq + 1, digest)


def head(connection: sqlite3.Connection) -> Head:
    """Give the newest entry's number and hash."""
    row = connection.execute("SELECT seq, hash FROM custody ORDER BY seq DESC LIMIT 1").fetchone()
    return Head(0, NO_HASH) if row is None else Head(row[0], row[1])


def signed_head(
    connection: sqlite3.Connection, key: DeviceKey, clock: Clock, device: str
) -> wire.Json:
    """Give the newest entry's number and hash, signed: what the centre remembers the log by."""
    last = head(connection)
    document = {
        "sv": wire.SCHEMA_VERSION,
        "device": device,
        "seq": last.seq,
        "hash": last.hash,
        "utc_ms": clock.utc_ns() // NS_PER_MS,
    }
    return envelope(key, PAYLOAD_TYPE, wire.canonical(wire.check("custody", document)))


def entry_hash(entry: Mapping[str, Any]) -> str:
    """Give the hash of an entry without its own `hash`."""
    content = {name: value for name, value in entry.items() if name != "hash"}
    return hashlib.sha256(wire.canonical(content)).hexdigest()


def check_chain(entries: Iterable[Mapping[str, Any]]) -> Head:
    """Check entries, oldest first, `detail` as an object or as its JSON text.

    Raises:
        ChainBroken: naming the first entry that was changed, removed or reordered.
    """
    last = Head(0, NO_HASH)
    for found in entries:
        entry = dict(found)
        if isinstance(entry.get("detail"), str):
            entry["detail"] = json.loads(entry["detail"])
        if entry["seq"] != last.seq + 1:
            raise ChainBroken(f"custody: entry {entry['seq']} stands where {last.seq + 1} belongs")
        if entry["previous"] != last.hash:
            raise ChainBroken(f"custody: entry {entry['seq']} does not follow the one before it")
        if entry_hash(entry) != entry["hash"]:
            raise ChainBroken(f"custody: entry {entry['seq']} was changed")
        last = Head(entry["seq"], entry["hash"])
    return last
