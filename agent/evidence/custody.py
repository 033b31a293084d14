"""The custody log: append-only, each entry holds the hash of the one before, heads are signed."""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping, MutableMapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core import wire
from agent.core.clock import NS_PER_MS, Clock
from agent.core.errors import ChainBroken, StorageError
from agent.evidence.keys import DeviceKey, PublicKey, envelope, open_envelope

PAYLOAD_TYPE = "application/vnd.outpost.custody+json"
NO_HASH = "0" * 64
NOTE_TIMEOUT_S = 15.0


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


def note(
    database: Path, clock: Clock, kind: str, subject: str, detail: Mapping[str, object]
) -> Head:
    """Add an entry from beside the agent, which may be running.

    Raises:
        StorageError: the database is not there or does not take it.
    """
    try:
        with closing(
            sqlite3.connect(
                f"{database.absolute().as_uri()}?mode=rw",
                uri=True,
                timeout=NOTE_TIMEOUT_S,
                isolation_level=None,
            )
        ) as connection:
            connection.execute("BEGIN IMMEDIATE")
            added = append(connection, clock, kind, subject, detail)
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise StorageError(f"custody {database}: {error}") from error
    return added


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


def check_chain(
    entries: Iterable[Mapping[str, Any]], hashes: MutableMapping[int, str] | None = None
) -> Head:
    """Check entries, oldest first, `detail` as an object or as its JSON text.

    Args:
        entries: the log from its first entry; it is read once.
        hashes: filled with the hash of each entry by its number, for signed heads.

    Raises:
        ChainBroken: naming the first entry that was changed, removed or reordered.
    """
    last = Head(0, NO_HASH)
    for found in entries:
        number = last.seq + 1
        try:
            last = _follow(last, found)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ChainBroken(f"custody: entry {number}: no entry of a log: {error}") from error
        if hashes is not None:
            hashes[last.seq] = last.hash
    return last


def check_head(document: wire.Json, key: PublicKey, hashes: Mapping[int, str]) -> Head:
    """Check a signed head against the log that `check_chain` has gone through.

    Raises:
        IntegrityError: naming the first thing wrong.
        ChainBroken: the log was cut before that entry, or is another one.
    """
    signed = wire.decode("custody", open_envelope(document, PAYLOAD_TYPE, key))
    said = Head(signed["seq"], signed["hash"])
    if said.seq > len(hashes):
        raise ChainBroken(f"custody: ends at entry {len(hashes)}; signed: entry {said.seq}")
    if {0: NO_HASH, **hashes}[said.seq] != said.hash:
        raise ChainBroken(f"custody: entry {said.seq} is not the one that was signed")
    return said


def _follow(last: Head, found: Mapping[str, Any]) -> Head:
    entry = dict(found)
    if isinstance(entry["detail"], str):
        entry["detail"] = json.loads(entry["detail"])
    number = last.seq + 1
    if entry["seq"] != number:
        raise ChainBroken(f"custody: entry {entry['seq']} stands where {number} belongs")
    if entry["previous"] != last.hash:
        raise ChainBroken(f"custody: entry {number} does not follow the one before it")
    if entry_hash(entry) != entry["hash"]:
        raise ChainBroken(f"custody: entry {number} was changed")
    return Head(number, entry["hash"])
