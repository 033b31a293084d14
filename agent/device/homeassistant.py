"""Home Assistant finds the box by itself: a retained description of every entity, an option.

Source: Home Assistant's documentation of MQTT discovery and of its `binary_sensor`, `event` and
`sensor` platforms. Only descriptions are sent: the values are the messages that the centre gets,
read by templates. No picture goes this way, whatever the site allows elsewhere.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from agent import __version__
from agent.core import log, wire
from agent.core.config import Doc, Pattern
from agent.core.errors import StorageError
from agent.core.store import Store
from agent.core.wire import Json, Topics
from agent.delivery.outbox import Outbox

KNOWN = "homeassistant"  # row of `meta`: the topics that have been described
EVENT_STATES = ("open", "closed", "sealed")
EXPIRES_BEATS = 4
LEAST_EXPIRY_S = 60
_HASH_LETTERS = 6

_log = log.get(__name__)

_PREFIX = Pattern(
    r"[A-Za-z0-9_-]{1,63}(/[A-Za-z0-9_-]{1,63}){0,3}", "words of A-Z a-z 0-9 _ - with / between"
)


@dataclass(frozen=True, slots=True)
class HomeAssistantConfig:
    """Entities for a Home Assistant that listens at the same broker; off unless asked for."""

    enabled: Annotated[
        bool,
        Doc(
            "Describe cameras, rules and health; switched off again, the descriptions are removed."
        ),
    ] = False
    prefix: Annotated[
        str, Doc("Its discovery prefix; the broker must let the device write below it."), _PREFIX
    ] = "homeassistant"


@dataclass(frozen=True, slots=True)
class Described:
    """A camera as Home Assistant is told of it."""

    camera: str
    rules: tuple[str, ...]


def entities(
    config: HomeAssistantConfig, topics: Topics, cameras: tuple[Described, ...], beat_s: float
) -> Mapping[str, Json]:
    """Give every description by its topic; none when it is switched off."""
    if not config.enabled:
        return {}
    found = [*_box(topics, beat_s)]
    for described in cameras:
        found += _camera(topics, described, beat_s)
    return {_topic(config, topics, platform, what): entity for platform, what, entity in found}


def announce(store: Store, outbox: Outbox, wanted: Mapping[str, Mapping[str, object]]) -> int:
    """Queue every description, and the removal of those that are no longer wanted.

    What was described is remembered in the same transaction, so that nothing is forgotten at
    Home Assistant when a camera goes or the option is switched off. Gives how many were removed.
    """

    def change(connection: sqlite3.Connection) -> int:
        known = _known(connection)
        for topic, entity in wanted.items():
            outbox.announce_in(connection, topic, wire.encode(entity))
        gone = sorted(known - set(wanted))
        for topic in gone:
            outbox.announce_in(connection, topic, b"")
        if known != set(wanted):
            connection.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (KNOWN, json.dumps(sorted(wanted))),
            )
        return len(gone)

    try:
        return store.write(change)
    except StorageError as error:  # the box must start all the same
        _log.error("not described to Home Assistant", reason=error)
        return 0


def _known(connection: sqlite3.Connection) -> set[str]:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (KNOWN,)).fetchone()
    with suppress(TypeError, ValueError):  # the disk may have changed it
        return set(json.loads(row["value"]))
    return set()


_Entity = tuple[str, str, Json]  # platform, what it is within the device, description


def _box(topics: Topics, beat_s: float) -> Iterator[_Entity]:
    device = {**_about(topics), "model": "camera box", "sw_version": __version__}
    shared = {
        **_shared(topics, device),
        "state_topic": topics.up("beat"),
        "expire_after": _expiry_s(beat_s),
        "entity_category": "diagnostic",
        "state_class": "measurement",
    }
    figures: tuple[tuple[str, str, str, Json], ...] = (
        (
            *("disk_free", "Disk free", "disk_free_bytes"),
            {"device_class": "data_size", "unit_of_measurement": "B"},
        ),
        (
            *("temperature", "Temperature", "temperature_c"),
            {"device_class": "temperature", "unit_of_measurement": "°C"},
        ),
        ("files_waiting", "Files waiting", "files_waiting", {}),
        ("messages_waiting", "Messages waiting", "queues.values() | sum", {}),
    )
    for what, name, value, more in figures:
        template = f"{{{{ value_json.body.{value} }}}}"
        yield (
            "sensor",
            what,
            {
                **shared,
                **more,
                "name": name,
                "unique_id": _unique(topics, what),
                "value_template": template,
            },
        )


def _camera(topics: Topics, described: Described, beat_s: float) -> Iterator[_Entity]:
    camera = described.camera
    box = _about(topics)
    device = {
        "identifiers": [f"{box['identifiers'][0]}/{camera}"],
        "name": camera,
        "manufacturer": box["manufacturer"],
        "model": "camera",
        "via_device": box["identifiers"][0],
    }
    shared = _shared(topics, device)
    state, what = topics.up(f"state/{camera}"), f"{camera}/recording"
    health: Json = {**shared, "entity_category": "diagnostic"}
    yield (
        "binary_sensor",
        what,
        {
            **health,
            "name": "Recording",
            "unique_id": _unique(topics, what),
            "device_class": "connectivity",
            "state_topic": state,
            "value_template": ("{{ 'ON' if value_json.body.state == 'streaming' else 'OFF' }}"),
            "json_attributes_topic": state,
            "json_attributes_template": (
                "{{ {'state': value_json.body.state, 'detail': value_json.body.detail} | tojson }}"
            ),
        },
    )
    what = f"{camera}/blind"
    yield (
        "binary_sensor",
        what,
        {
            **health,
            "name": "Cannot see",
            "unique_id": _unique(topics, what),
            "device_class": "problem",
            "state_topic": topics.up("beat"),
            "expire_after": _expiry_s(beat_s),
            "value_template": (
                f"{{% set found = value_json.body.cameras | selectattr('id', 'eq', '{camera}')"
                " | list %}{% if found %}{{ 'ON' if found[0].blind | default([])"
                " | selectattr('reason') | list else 'OFF' }}{% endif %}"
            ),
        },
    )
    told = {**shared, "state_topic": topics.up("event/+"), "event_types": list(EVENT_STATES)}
    for what, name, rule in (
        (f"{camera}/event", "Last event", ""),
        *((f"{camera}/rule/{rule}", rule, rule) for rule in described.rules),
    ):
        yield (
            "event",
            what,
            {
                **told,
                "name": name,
                "unique_id": _unique(topics, what),
                "value_template": _event_template(camera, rule),
            },
        )


def _event_template(camera: str, rule: str) -> str:
    """Give nothing, which Home Assistant ignores, for the events of others."""
    chosen = f"b.camera == '{camera}'" + (f" and b.rule == '{rule}'" if rule else "")
    fields = ("event_id", "kind", "rule", "label", "score", "start_utc_ms", "end_utc_ms")
    listed = ", ".join(f"'{name}': b.{name}" for name in fields)
    return (
        f"{{% set b = value_json.body %}}{{% if {chosen} %}}"
        f"{{{{ {{'event_type': b.state, {listed}}} | tojson }}}}{{% endif %}}"
    )


def _about(topics: Topics) -> dict[str, Any]:
    return {
        "identifiers": [f"outpost/{topics.site}/{topics.device}"],
        "name": topics.device,
        "manufacturer": "Outpost",
    }


def _shared(topics: Topics, device: Mapping[str, object]) -> Json:
    """Give what every entity has: the latest word of birth and death says whether it is there."""
    return {
        "device": dict(device),
        "origin": {"name": "Outpost", "sw_version": __version__},
        "qos": 1,
        "availability_mode": "latest",
        "availability": [
            {"topic": topics.up("birth"), "value_template": "online"},
            {
                "topic": topics.up("death"),
                "value_template": "{{ 'offline' if value else 'online' }}",
            },
        ],
    }


def _expiry_s(beat_s: float) -> int:
    return max(LEAST_EXPIRY_S, round(EXPIRES_BEATS * beat_s))


def _unique(topics: Topics, what: str) -> str:
    return f"outpost/{topics.site}/{topics.device}/{what}"


def _topic(config: HomeAssistantConfig, topics: Topics, platform: str, what: str) -> str:
    node = _slug(f"outpost_{topics.site}_{topics.device}", f"{topics.site}/{topics.device}")
    return f"{config.prefix}/{platform}/{node}/{_slug(what, what)}/config"


def _slug(text: str, meant: str) -> str:
    """Give a name of the letters that discovery allows, different for what is different."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", text)
    return f"{plain}-{hashlib.sha256(meant.encode()).hexdigest()[:_HASH_LETTERS]}"
