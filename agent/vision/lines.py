"""What the analysis process says, one JSON object a line on its standard output.

`event` (opened, closed), `camera` (on a change of state), `stats` (each second), `ready` and
`degraded` (the detector). Imports nothing heavy: the process that records reads the lines.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import fastjsonschema

from agent.core import wire
from agent.core.clock import NS_PER_MS
from agent.core.errors import MalformedMessage
from agent.core.model import Event, EventState
from agent.vision import analytics

MAX_PATH_POINTS: Final = 600  # of an event's path: four a second over its longest default length
MAX_LINE_CHARS: Final = 256 * 1024

_SCORE_DIGITS = 4

_UTC_NS = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_SECONDS = {"type": "number", "minimum": 0, "maximum": 3600}
_EVENT_LINE: Final = {
    "type": "object",
    "required": ["type", "event"],
    "properties": {
        "type": {"const": "event"},
        "event": {
            "type": "object",
            "additionalProperties": False,
            "required": ["event_id", "camera", "kind", "rule", "state", "start_utc_ns"],
            "properties": {
                "event_id": {"type": "string"},
                "camera": {"type": "string"},
                "kind": {"type": "string"},
                "rule": {"type": "string"},
                "state": {"enum": [EventState.OPEN.value, EventState.CLOSED.value]},
                "start_utc_ns": _UTC_NS,
                "end_utc_ns": {"anyOf": [_UTC_NS, {"type": "null"}]},
                "label": {"type": "string"},
                "score": {"type": "number"},
                "track_ids": {"type": "array", "items": {"type": "integer"}},
                "measured": {"type": "object", "additionalProperties": {"type": "number"}},
                "model": {"type": "string"},
                "reason": {"type": "string"},
                "severity": {"enum": ["info", "warning", "alarm"]},
                "has_clip": {"type": "boolean"},
                "clip_until_utc_ns": {"anyOf": [_UTC_NS, {"type": "null"}]},
                "pre_s": _SECONDS,
                "post_s": _SECONDS,
                "snapshot": {
                    "anyOf": [
                        {
                            "type": "string",
                            "pattern": r"^(?!/)(?!.*\.\.)[\w./-]+$",
                            "maxLength": 255,
                        },
                        {"type": "null"},
                    ]
                },
                "path": {
                    "type": "array",
                    "maxItems": MAX_PATH_POINTS,
                    "items": {
                        "type": "array",
                        "minItems": 3,
                        "maxItems": 3,
                        "items": {"type": "number"},
                    },
                },
            },
        },
    },
}


def line(kind: str, **fields: Any) -> str:
    """Give a line that is no event: `camera`, `stats`, `ready` or `degraded`."""
    return json.dumps({"type": kind, **fields}, separators=(",", ":"), ensure_ascii=False)


def to_line(event: Event) -> str:
    """Give the line of an event, without the newline."""
    fields = {
        "event_id": event.event_id,
        "camera": event.camera,
        "kind": event.kind,
        "rule": event.rule,
        "state": event.state.value,
        "start_utc_ns": event.start_utc_ns,
        "end_utc_ns": event.end_utc_ns,
        "label": event.label,
        "score": event.score,
        "track_ids": event.track_ids,
        "measured": dict(event.measured),
        "model": event.model,
        "reason": event.reason,
        "severity": event.severity,
        "has_clip": event.has_clip,
        "clip_until_utc_ns": event.clip_until_utc_ns,
        "pre_s": event.pre_s,
        "post_s": event.post_s,
        "snapshot": None if event.snapshot is None else event.snapshot.as_posix(),
        "path": event.path,
    }
    return line("event", event=fields)


def from_line(text: str) -> Event:
    """Read an event back.

    Raises:
        MalformedMessage: not the line of an event, or one that the centre would refuse.
    """
    if len(text) > MAX_LINE_CHARS:
        raise MalformedMessage(f"event line: {len(text)} characters; allowed: {MAX_LINE_CHARS}")
    try:
        said: Any = json.loads(text, parse_constant=_refuse)
        _validator()(said)
    except fastjsonschema.JsonSchemaValueException as error:
        raise MalformedMessage(f"event line: {error.message[:200]}") from error
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"event line: not JSON: {str(error)[:120]}") from error
    event = _event(said["event"])
    wire.check("event", event_body(event))
    return event


def event_body(event: Event, clip_refused: str = "") -> wire.Json:
    """Give the body of the message `event/<kind>` for the centre.

    Args:
        event: as it was said.
        clip_refused: why its clip gets no video; empty where it does.
    """
    body: wire.Json = {
        "event_id": event.event_id,
        "camera": event.camera,
        "kind": event.kind,
        "rule": event.rule,
        "state": event.state.value,
        "start_utc_ms": event.start_utc_ns // NS_PER_MS,
        "end_utc_ms": None if event.end_utc_ns is None else event.end_utc_ns // NS_PER_MS,
        "label": event.label,
        "score": round(event.score, _SCORE_DIGITS),
        "tracks": list(event.track_ids),
        "measured": dict(event.measured),
        "model": event.model,
        "reason": event.reason,
        "severity": event.severity,
    }
    if topic := _onvif_topic(event.kind, event.label):
        body["onvif_topic"] = topic
    if clip_refused:
        body["clip_refused"] = clip_refused
    return body


def sealed_body(
    event: Event, clip_id: str, missing_ms: int, files: Sequence[Mapping[str, object]]
) -> wire.Json:
    """Give the body of the message that an event's clip is sealed.

    Args:
        event: as it was said last; one that lasts may still be open.
        clip_id: of the clip.
        missing_ms: of the wanted span, what was not recorded.
        files: name, size_bytes and sha256 of each.
    """
    clip = {"clip_id": clip_id, "missing_ms": missing_ms, "files": list(files)}
    return {**event_body(event), "state": EventState.SEALED.value, "clip": clip}


def _event(fields: dict[str, Any]) -> Event:
    snapshot = fields.get("snapshot")
    return Event(
        event_id=fields["event_id"],
        camera=fields["camera"],
        kind=fields["kind"],
        rule=fields["rule"],
        state=EventState(fields["state"]),
        start_utc_ns=fields["start_utc_ns"],
        end_utc_ns=fields.get("end_utc_ns"),
        label=fields.get("label", ""),
        score=fields.get("score", 0.0),
        track_ids=tuple(fields.get("track_ids", ())),
        measured=fields.get("measured", {}),
        model=fields.get("model", ""),
        reason=fields.get("reason", ""),
        severity=fields.get("severity", "warning"),
        has_clip=fields.get("has_clip", True),
        clip_until_utc_ns=fields.get("clip_until_utc_ns"),
        pre_s=fields.get("pre_s", 5.0),
        post_s=fields.get("post_s", 5.0),
        snapshot=None if snapshot is None else Path(snapshot),
        path=tuple((int(utc_ms), x, y) for utc_ms, x, y in fields.get("path", ())),
    )


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


@cache
def _validator() -> Callable[[Any], Any]:
    compiled: Callable[[Any], Any] = fastjsonschema.compile(_EVENT_LINE)
    return compiled


@cache
def _onvif_topic(kind: str, label: str) -> str:
    if kind not in analytics.kinds():
        return ""
    spec = analytics.rule(kind).SPEC
    return spec.onvif_topics.get(label, spec.onvif_topic)
