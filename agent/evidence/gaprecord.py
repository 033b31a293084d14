"""The device's signed word on messages that will not come, kept at the centre with the gap."""

from collections.abc import Mapping
from typing import Any

from agent.core import wire
from agent.core.errors import IntegrityError
from agent.evidence.keys import DeviceKey, PublicKey, envelope, open_envelope

PAYLOAD_TYPE = "application/vnd.outpost.gap+json"


def sign(fields: Mapping[str, Any], key: DeviceKey) -> wire.Json:
    """Complete a record with its version and sign it."""
    record = wire.check("gap", {**fields, "sv": wire.SCHEMA_VERSION})
    return envelope(key, PAYLOAD_TYPE, wire.canonical(record))


def opened(document: wire.Json, key: PublicKey, device: str) -> wire.Json:
    """Check a signed record and give what it says.

    Raises:
        IntegrityError: another key signed it, it is of another device, or it is no record.
    """
    record = wire.decode("gap", open_envelope(document, PAYLOAD_TYPE, key))
    if record["device"] != device:
        raise IntegrityError(f"gap record of {record['device']!r}; wanted: {device!r}")
    return record
