"""The wire: topics, envelope, canonical JSON, and a JSON Schema for every message.

Everything but file chunks is compact JSON that mosquitto_sub shows readably. A message is
checked against `schemas/<name>.json` on both sides; docs/WIRE.md shows an example of each.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import fastjsonschema

from agent.core.errors import MalformedMessage

SCHEMA_VERSION = 1
PREFIX = "outpost/1"
MAX_JSON_BYTES = 256 * 1024  # holds the leaves of a file of about 12 GB
MAX_DEPTH = 32
SCHEMAS = (
    "envelope",
    "birth",
    "death",
    "event",
    "state",
    "beat",
    "offer",
    "need",
    "done",
    "file_receipt",
    "row_receipt",
    "manifest",
    "custody",
    "command",
    "replay",
    "hold",
    "release",
    "command_status",
    "gap",
    "file_gap",
    "store",
    "receiver_keys",
    "rotation",
    "time",
    "position",
    "dock_session",
    "dock_report",
    "footage_tag",
)
BODIES: Mapping[str, str] = {  # first part of a message's kind: the schema of its body
    **{name: name for name in ("event", "state", "beat", "birth", "time", "position")},
    "command": "command_status",
    "gap": "file_gap",
    "report": "dock_report",
    "footage": "footage_tag",
}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Topics:
    """All topics of one device."""

    site: str
    device: str

    @property
    def root(self) -> str:
        """What every topic of the device begins with."""
        return f"{PREFIX}/{self.site}/{self.device}"

    def up(self, kind: str) -> str:
        """Give the topic of an outbox message by its kind, such as beat or event/<kind>."""
        return f"{self.root}/{kind}"

    @property
    def receipt(self) -> str:
        """Signed acknowledgements of stored outbox rows, from the centre."""
        return f"{self.root}/receipt"

    def command(self, command_id: str) -> str:
        """Give the topic of a command of the centre; `+`: of all."""
        return f"{self.root}/command/{command_id}"

    def want(self, name: str) -> str:
        """Give the topic of what the centre wants a device to know, retained; `+`: of all."""
        return f"{self.root}/want/{name}"

    def file(self, fid: str, part: str) -> str:
        """Give a topic of one transfer: offer, need, done, receipt or a chunk's offset."""
        return f"{self.root}/file/{fid}/{part}"

    @property
    def file_down(self) -> tuple[str, ...]:
        """What the device listens to for its transfers."""
        return (self.file("+", "need"), self.file("+", "receipt"))


@dataclass(frozen=True, slots=True)
class Address:
    """A topic taken apart: site, device and the rest."""

    site: str
    device: str
    rest: tuple[str, ...]


def address(topic: str) -> Address:
    """Take a topic apart.

    Raises:
        MalformedMessage: the topic is not one of ours.
    """
    parts = topic.split("/")
    if parts[:2] != PREFIX.split("/") or len(parts) < 5:  # noqa: PLR2004 - prefix, site, device, rest
        raise MalformedMessage(f"topic {topic[:80]!r}; allowed: {PREFIX}/<site>/<device>/…")
    return Address(parts[2], parts[3], tuple(parts[4:]))


def canonical(document: Any) -> bytes:
    """Give the one byte form that is hashed and signed: sorted keys, no spaces, UTF-8, no floats.

    Raises:
        TypeError: the document holds a float, whose text form is not unique, or a non-JSON value.
    """
    _refuse_floats(document)
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def encode(document: Mapping[str, Any]) -> bytes:
    """Give a message's compact JSON."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def decode(schema: str, payload: bytes) -> Json:
    """Read a message and check it against its schema.

    Raises:
        MalformedMessage: too large, not JSON, too deep, a part that stands twice, or refused by
            the schema.
    """
    if len(payload) > MAX_JSON_BYTES:
        raise MalformedMessage(f"{schema}: {len(payload)} bytes; allowed: {MAX_JSON_BYTES}")
    try:
        document = _DECODER.decode(payload.decode())
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"{schema}: not JSON: {str(error)[:120]}") from error
    # Without so many brackets nothing can be deep: most messages have fewer.
    if payload.count(b"{") + payload.count(b"[") < MAX_DEPTH:
        return fit(schema, document)
    return check(schema, document)


def check(schema: str, document: Any) -> Json:
    """Check a document against its schema and return it.

    Raises:
        MalformedMessage: naming the part that is wrong and what is allowed.
    """
    if _is_deep(document):
        raise MalformedMessage(f"{schema}: nested deeper than {MAX_DEPTH}")
    return fit(schema, document)


def fit(schema: str, document: Any) -> Json:
    """Check a part of a document that was checked before, as `check` does but for its depth.

    Raises:
        MalformedMessage: naming the part that is wrong and what is allowed.
    """
    try:
        validator(schema)(document)
    except fastjsonschema.JsonSchemaValueException as error:
        raise MalformedMessage(f"{schema}: {error.message[:200]}") from error
    return dict(document)


def schema_text(schema: str) -> str:
    """Give a schema's JSON text."""
    return (resources.files("agent.core") / "schemas" / f"{schema}.json").read_text()


@cache
def validator(schema: str) -> Callable[[Any], Any]:
    """Compile a schema once."""
    compiled: Callable[[Any], Any] = fastjsonschema.compile(
        json.loads(schema_text(schema)), use_default=False
    )
    return compiled


def _refuse_floats(value: Any) -> None:
    if isinstance(value, float):
        raise TypeError(f"canonical JSON: float {value!r}; allowed: whole numbers and texts")
    if isinstance(value, Mapping):
        for item in value.values():
            _refuse_floats(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_floats(item)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _number(text: str) -> int | float:
    """Give 5 for `5.0`: JSON knows one kind of number, and only whole ones can be signed."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large")
    return int(value) if value.is_integer() else value


def _once(pairs: list[tuple[str, Any]]) -> Json:
    """Refuse what stands twice: two readers could take different ones of it."""
    document = dict(pairs)
    if len(document) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"{name[:40]!r} stands twice")
            seen.add(name)
    return document


def _is_deep(document: Any) -> bool:
    """Whether something lies deeper than it may; level by level, which is soon done."""
    level = [document]
    for _ in range(MAX_DEPTH):
        if not (level := [part for part in level if isinstance(part, dict | list)]):
            return False
        level = [
            item for part in level for item in (part.values() if isinstance(part, dict) else part)
        ]
    return bool(level)


_DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_number, object_pairs_hook=_once
)
