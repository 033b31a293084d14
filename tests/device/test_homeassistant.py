"""Home Assistant finds the box: descriptions as its documentation asks, on real brokers."""

import json
import re
import threading

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from agent.core.clock import RealClock
from agent.core.config import load
from agent.core.errors import ConfigError, OutboxFull
from agent.core.wire import Topics
from agent.delivery.outbox import Outbox
from agent.device.homeassistant import KNOWN, Described, HomeAssistantConfig, announce, entities
from firmware_sim import broker as brokers
from tests.delivery.centre import Running, until
from tests.delivery.test_uplink import uplink
from tests.fuzz.test_decoder import GOOD

TOPICS = Topics("plaza", "cam-1")
ON = HomeAssistantConfig(enabled=True)
CAMERAS = (Described("west", ("kerb", "person-on-crossing")), Described("north.gate", ()))
# Source: Home Assistant's documentation of the MQTT integration and its platforms.
DISCOVERY = re.compile(r"homeassistant/(\w+)/(?:([a-zA-Z0-9_-]+)/)?([a-zA-Z0-9_-]+)/config")
COMMON = {
    *("availability", "availability_mode", "device", "entity_category", "name", "origin", "qos"),
    *("unique_id", "state_topic", "value_template", "device_class", "expire_after"),
    *("json_attributes_topic", "json_attributes_template"),
}
PLATFORMS = {
    "binary_sensor": COMMON,
    "sensor": COMMON | {"unit_of_measurement", "state_class"},
    "event": (COMMON - {"expire_after"}) | {"event_types"},
}
CLASSES = {
    ("binary_sensor", "connectivity"): {""},
    ("binary_sensor", "problem"): {""},
    ("sensor", "data_size"): {"B"},
    ("sensor", "temperature"): {"°C"},
}
DEVICE = {"identifiers", "name", "manufacturer", "model", "sw_version", "via_device"}


def described(config=ON, cameras=CAMERAS, topics=TOPICS, beat_s=30.0):
    return entities(config, topics, cameras, beat_s)


def of(found, platform, name, camera="cam-1"):
    (entity,) = [
        entity
        for topic, entity in found.items()
        if topic.startswith(f"homeassistant/{platform}/")
        and (entity["name"], entity["device"]["name"]) == (name, camera)
    ]
    return entity


def test_descriptions_are_as_home_assistant_documents_them():
    found = described()
    assert len(found) == 4 + (2 + 1 + 2) + (2 + 1)
    for topic, entity in found.items():
        platform = DISCOVERY.fullmatch(topic)[1]
        assert set(entity) <= PLATFORMS[platform]
        assert {"name", "unique_id", "state_topic", "device", "origin"} <= set(entity)
        assert entity["origin"]["name"]
        assert entity["device"]["identifiers"]
        assert set(entity["device"]) <= DEVICE
        assert entity["qos"] in (0, 1, 2)
        if "device_class" in entity:
            units = CLASSES[platform, entity["device_class"]]
            assert entity.get("unit_of_measurement", "") in units
        assert entity.get("entity_category", "diagnostic") == "diagnostic"
        assert entity.get("expire_after", 60) >= 60
        assert isinstance(entity.get("expire_after", 60), int)
        if platform == "event":
            assert entity["event_types"] == ["open", "closed", "sealed"]
        assert entity["availability_mode"] in ("all", "any", "latest")
        for place in entity["availability"]:
            assert set(place) <= {"topic", "value_template"}
        assert json.loads(json.dumps(entity)) == entity
    unique = [entity["unique_id"] for entity in found.values()]
    assert len(set(unique)) == len(unique)


def test_values_are_read_from_the_devices_own_topics_and_no_picture_is_among_them():
    for topic, entity in described().items():
        for key in ("state_topic", "json_attributes_topic"):
            assert entity.get(key, TOPICS.root + "/").startswith(TOPICS.root + "/")
        assert not topic.startswith(("homeassistant/image/", "homeassistant/camera/"))
        assert "file/" not in json.dumps(entity)


def test_cameras_belong_to_the_box():
    found = described()
    box = of(found, "sensor", "Disk free")["device"]
    camera = of(found, "event", "kerb", "west")["device"]
    assert camera["via_device"] == box["identifiers"][0] == "outpost/plaza/cam-1"
    assert camera["identifiers"] == ["outpost/plaza/cam-1/west"]


def test_names_that_discovery_does_not_allow_stay_apart():
    for pair in (("a.b", "a_b"), ("a-b", "a.b"), ("x.y", "x..y")):
        cameras = tuple(Described(name, ("r",)) for name in pair)
        assert len(described(cameras=cameras)) == 4 + 2 * 4
    here = described(topics=Topics("a", "b_c"))
    there = described(topics=Topics("a_b", "c"))
    assert set(here).isdisjoint(there)


def test_a_prefix_is_words_with_strokes_between(tmp_path):
    file = tmp_path / "c.toml"
    for good in ("homeassistant", "ha/east"):
        file.write_text(f'prefix = "{good}"')
        assert load(file, HomeAssistantConfig).prefix == good
    for wrong in ("", "#", "a/+/b", "a//b", "/a", "a/", "$SYS", "a b"):
        file.write_text(f'prefix = "{wrong}"')
        with pytest.raises(ConfigError, match="prefix"):
            load(file, HomeAssistantConfig)


# What the templates make of the messages; with the same engine that Home Assistant uses.


def rendered(entity, message, key="value_template"):
    jinja = pytest.importorskip("jinja2", reason="needs jinja2, the engine of the templates")
    text = json.dumps(message) if message else ""
    template = jinja.Environment(autoescape=False).from_string(entity[key])
    return template.render(value=text, value_json=message or jinja.Undefined())


def envelope(body, kind):
    return GOOD["envelope"] | {"kind": kind, "body": body}


def test_recording_is_what_the_state_says():
    entity = of(described(), "binary_sensor", "Recording", "west")
    for state, value in (("streaming", "ON"), ("lost", "OFF"), ("auth_failed", "OFF")):
        body = {"state": state, "since_utc_ms": 1, "detail": 'says "no" <é>'}
        assert rendered(entity, envelope(body, "state/west")) == value
        attributes = rendered(entity, envelope(body, "state/west"), "json_attributes_template")
        assert json.loads(attributes) == {"state": state, "detail": body["detail"]}
    assert entity["state_topic"] == "outpost/1/plaza/cam-1/state/west"


def test_cannot_see_is_what_the_beat_says_of_this_camera():
    entity = of(described(), "binary_sensor", "Cannot see", "west")
    dark = {"rule": "r", "reason": "dark", "total_s": 1.0}
    for cameras, value in (
        ([{"id": "west", "blind": [dark]}], "ON"),
        ([{"id": "west", "blind": [dark | {"reason": ""}]}], "OFF"),
        ([{"id": "west"}], "OFF"),
        ([{"id": "west", "blind": []}, {"id": "east", "blind": [dark]}], "OFF"),
        ([{"id": "east", "blind": [dark]}], ""),
    ):
        assert rendered(entity, envelope(GOOD["beat"] | {"cameras": cameras}, "beat")) == value


def test_events_go_to_their_rule_and_to_no_other():
    found = described()
    body = GOOD["event"] | {"camera": "west", "rule": "kerb"}
    message = envelope(body, "event/line_cross")
    told = json.loads(rendered(of(found, "event", "kerb", "west"), message))
    assert told == {
        "event_type": body["state"],
        **{name: body[name] for name in ("event_id", "kind", "rule", "label", "score")},
        **{name: body[name] for name in ("start_utc_ms", "end_utc_ms")},
    }
    assert json.loads(rendered(of(found, "event", "Last event", "west"), message)) == told
    assert rendered(of(found, "event", "person-on-crossing", "west"), message) == ""
    assert rendered(of(found, "event", "Last event", "north.gate"), message) == ""


def test_figures_are_those_of_the_beat():
    found, message = described(), envelope(GOOD["beat"], "beat")
    for name, value in (
        ("Disk free", "21474836480"),
        ("Temperature", "48"),
        ("Files waiting", "2"),
        ("Messages waiting", "1"),
    ):
        assert rendered(of(found, "sensor", name), message) == value
    assert of(found, "sensor", "Disk free")["expire_after"] == 120
    assert of(described(beat_s=1.0), "sensor", "Disk free")["expire_after"] == 60


def test_the_device_is_there_between_birth_and_death():
    birth, death = of(described(), "sensor", "Disk free")["availability"]
    assert birth["topic"].endswith("cam-1/birth")
    assert death["topic"].endswith("cam-1/death")
    assert birth["value_template"] == "online"
    assert rendered(death, GOOD["death"]) == "offline"
    assert rendered(death, None) == "online"


# Through the outbox.


@pytest.fixture
def outbox(store, clock):
    return Outbox(store, TOPICS, clock, boot=1)


def queued(store):
    with store.reading() as connection:
        rows = connection.execute("SELECT topic, payload FROM outbox ORDER BY id").fetchall()
    return {row["topic"]: row["payload"] for row in rows}


def test_descriptions_are_queued_once_and_taken_back_when_they_are_no_longer_wanted(store, outbox):
    both = described()
    for _ in range(3):  # starts of the agent without a broker
        assert announce(store, outbox, both) == 0
    assert {topic: json.loads(payload) for topic, payload in queued(store).items()} == both
    assert outbox.depths()["state"] == len(both)
    one = described(cameras=CAMERAS[:1])
    assert announce(store, outbox, one) == 3
    gone = set(both) - set(one)
    assert {topic for topic, payload in queued(store).items() if payload == b""} == gone
    outbox.accept([row.row_id for row in outbox.take(100)])
    assert announce(store, outbox, described(HomeAssistantConfig())) == len(one)
    assert set(queued(store)) == set(one)
    assert set(queued(store).values()) == {b""}
    outbox.accept([row.row_id for row in outbox.take(100)])
    assert announce(store, outbox, {}) == 0
    assert queued(store) == {}


def test_a_box_that_never_had_it_on_says_nothing(store, outbox):
    assert announce(store, outbox, described(HomeAssistantConfig())) == 0
    assert queued(store) == {}


def test_another_prefix_takes_the_old_one_back(store, outbox):
    announce(store, outbox, described())
    moved = described(HomeAssistantConfig(enabled=True, prefix="ha"))
    assert announce(store, outbox, moved) == len(moved)
    assert all(topic.startswith("ha/") for topic, payload in queued(store).items() if payload)


class Full:
    def write(self, _change):
        raise OutboxFull("database full")


def test_a_full_box_starts_all_the_same(outbox):
    assert announce(Full(), outbox, described()) == 0


class Assistant:
    """Home Assistant's end of the broker, as far as discovery goes."""

    def __init__(self, port):
        self.found = {}
        self.is_ready = threading.Event()
        self._client = Client(
            CallbackAPIVersion.VERSION2, "assistant", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.on_message = self._hear
        self._client.on_connect = lambda client, *_: client.subscribe("homeassistant/#", 1)
        self._client.on_subscribe = lambda *_: self.is_ready.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self.is_ready.wait(10)

    def _hear(self, _client, _userdata, message):
        if message.payload:
            self.found[message.topic] = json.loads(message.payload)
        else:
            self.found.pop(message.topic, None)

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


def heard(port, wanted):
    """Whether somebody who connects now is told just this."""
    assistant = Assistant(port)
    try:
        return until(lambda: assistant.found == wanted, 5.0)
    finally:
        assistant.close()


@pytest.mark.broker
def test_whoever_comes_later_finds_them_and_finds_them_gone(broker, store, outbox, tmp_path):
    wanted = dict(described())
    announce(store, outbox, wanted)
    with Running(uplink(broker.port, outbox, tmp_path)):
        # Nobody listens yet: the broker keeps them, and they are not offered again and again.
        assert until(lambda: not any(topic in queued(store) for topic in wanted))
        assert heard(broker.port, wanted)
    announce(store, outbox, {})
    with Running(uplink(broker.port, outbox, tmp_path)):
        assert until(lambda: not any(topic in queued(store) for topic in wanted))
        assert heard(broker.port, {})


@pytest.mark.broker
def test_a_broker_that_forgets_is_told_again(tmp_path, store, outbox):
    wanted = dict(described())
    announce(store, outbox, wanted)
    broker = brokers.start("embedded", directory=tmp_path / "broker")
    with Running(uplink(broker.port, outbox, tmp_path)):
        assert heard(broker.port, wanted)
        broker.kill()
        again = brokers.start("embedded", broker.port, tmp_path / "broker2")
        assert heard(again.port, wanted)
    again.stop()


def test_what_was_described_is_remembered_by_topic(store, outbox):
    announce(store, outbox, described())
    with store.reading() as connection:
        row = connection.execute("SELECT value FROM meta WHERE key = ?", (KNOWN,)).fetchone()
    assert json.loads(row["value"]) == sorted(described())
    assert RealClock().utc_ns() > 0
