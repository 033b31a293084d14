"""The signed list of one docking: who, when, which files with which hashes, and what was left out.

`provenance` is "dock": the hashes prove that nothing has changed since the camera was docked. They
say nothing of the time before.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent import __version__
from agent.core import wire
from agent.core.clock import NS_PER_MS, Clock
from agent.core.wire import Json
from agent.docking.footage import Footage
from agent.docking.slotrows import Docking
from agent.evidence.custody import Head
from agent.evidence.docklist import PAYLOAD_TYPE
from agent.evidence.keys import DeviceKey, envelope


@dataclass(frozen=True, slots=True)
class Facts:
    """What a list is made of."""

    device: str
    site: str
    docking: Docking
    files: Sequence[Footage]
    clock: Mapping[str, object]
    previous_sha256: str
    head: Head


def document(facts: Facts, hashes: Callable[[Footage], Mapping[str, str]], clock: Clock) -> Json:
    """Give the list, checked against its schema.

    Args:
        facts: what is known.
        hashes: leaf_root and manifest_sha256 of a sealed file.
        clock: for the time of sealing.
    """
    docking = facts.docking
    files = [_file(item, hashes) for item in facts.files if item.here != "no"]
    told = {
        "sv": wire.SCHEMA_VERSION,
        "session_id": docking.id,
        "device": facts.device,
        "site": facts.site,
        "slot": docking.slot,
        "agent": f"outpost {__version__}",
        "camera": {
            "name": docking.camera,
            "serial": docking.serial,
            "model": docking.model,
            "firmware": docking.firmware,
            "usb_id": docking.usb_id,
            "battery_percent": docking.battery_percent,
        },
        "officer": {"id": docking.officer, "source": docking.officer_source},
        "docked_utc_ms": docking.started_utc_ns // NS_PER_MS,
        "sealed_utc_ms": clock.utc_ns() // NS_PER_MS,
        "clock": dict(facts.clock),
        "camera_offset_ms": docking.clock_offset_ms,
        "camera_rtt_ms": docking.clock_rtt_ms,
        "files": files,
        "not_copied": [
            {"name": item.name, "size_bytes": item.size_bytes}
            for item in facts.files
            if item.here == "no"
        ],
        "ignored": list(docking.left_out),
        "counts": {
            "files": len(files),
            "bytes": sum(int(item["size_bytes"]) for item in files),
            "set_aside": sum(1 for item in files if item["flags"]),
            "not_copied": sum(1 for item in facts.files if item.here == "no"),
            "ignored": len(docking.left_out),
        },
        "quarantine": docking.quarantine,
        "previous_sha256": facts.previous_sha256,
        "custody_head": {"seq": facts.head.seq, "hash": facts.head.hash},
        "provenance": "dock",
    }
    return wire.check("dock_session", told)


def signed(document: Json, key: DeviceKey) -> Json:
    """Give the list in its signed envelope."""
    return envelope(key, PAYLOAD_TYPE, wire.canonical(document))


def previous(connection: sqlite3.Connection) -> str:
    """Give the hash of the list that this dock signed last; empty before the first."""
    row = connection.execute(
        "SELECT manifest_sha256 FROM dock_session WHERE sealed_utc_ns IS NOT NULL"
        " ORDER BY sealed_utc_ns DESC, id DESC LIMIT 1"
    ).fetchone()
    return "" if row is None else str(row["manifest_sha256"])


def note(
    connection: sqlite3.Connection, session_id: str, previous: str, digest: str, utc_ns: int
) -> None:
    """Write that a docking's list is signed, inside a transaction."""
    connection.execute(
        "UPDATE dock_session SET sealed_utc_ns = ?, previous_sha256 = ?, manifest_sha256 = ?"
        " WHERE id = ?",
        (utc_ns, previous, digest, session_id),
    )


def _file(item: Footage, hashes: Callable[[Footage], Mapping[str, str]]) -> Json:
    return {
        "id": item.evidence_id,
        "name": item.name,
        "size_bytes": item.size_bytes,
        "mtime_utc_ms": item.mtime_ns // NS_PER_MS,
        "sha256": item.sha256,
        "is_marked": bool(item.is_marked),
        "category": item.category,
        "is_playable": None if item.is_playable is None else bool(item.is_playable),
        "duration_ms": item.duration_ms,
        "flags": json.loads(item.flags),
        **hashes(item),
    }
