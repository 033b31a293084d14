"""The gate before a broker: what it holds, what it answers, what it slows down."""

import contextlib
import threading
import time

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from firmware_sim.gate import Gate, Packets, topic_of

pytestmark = pytest.mark.broker
TOPIC = "outpost/1/plaza/cam-1/file/f1/done"
PUBLISH = b"\x32\x11\x00\x0asome/topic\x00\x07\x00xx"


class Peer:
    """A client that notes what comes and which reason its publishes get."""

    def __init__(self, port):
        self.codes, self.heard, self.ready = [], [], threading.Event()
        self.client = Client(
            CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5, clean_session=None
        )
        self.client.on_publish = lambda _c, _d, _mid, code, _p: self.codes.append(code.value)
        self.client.on_message = lambda _c, _d, message: self.heard.append(message.payload)
        self.client.on_subscribe = lambda *_: self.ready.set()
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.client.subscribe("outpost/#", qos=1)
        assert self.ready.wait(5)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()
        self.client.on_publish = self.client.on_message = self.client.on_subscribe = None


@pytest.fixture
def gate(embedded):
    opened = Gate(embedded.port).start()
    with contextlib.closing(opened):
        yield opened


@pytest.fixture
def peer(gate):
    made = Peer(gate.port)
    with contextlib.closing(made):
        yield made


def wait(condition):
    deadline_s = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert condition()


def test_a_packet_waits_at_its_mark_until_it_is_let_go(gate, peer):
    mark = gate.stop_at("file/[^/]+/done")
    peer.client.publish("outpost/other", b"first", qos=1)
    wait(lambda: peer.heard == [b"first"])
    assert not mark.reached.is_set()
    peer.client.publish(TOPIC, b"second", qos=1)
    assert mark.reached.wait(5)
    time.sleep(0.2)
    assert peer.heard == [b"first"]
    mark.released.set()
    wait(lambda: peer.heard == [b"first", b"second"])


def test_it_answers_for_the_broker(gate, peer):
    gate.set(answer_code=0x97)
    peer.client.publish(TOPIC, b"lost", qos=1)
    wait(lambda: peer.codes == [0x97])
    gate.set()
    peer.client.publish(TOPIC, b"taken", qos=1)
    wait(lambda: peer.heard == [b"taken"])


def test_a_partition_holds_everything_and_loses_nothing(gate, peer):
    gate.set(is_up_blocked=True, is_down_blocked=True)
    peer.client.publish(TOPIC, b"later", qos=1)
    time.sleep(0.3)
    assert peer.heard == []
    gate.set()
    wait(lambda: peer.heard == [b"later"])


def test_a_narrow_way_takes_its_time(gate, peer):
    gate.set(rate_bytes_per_s=20_000.0)
    begun_s = time.monotonic()
    peer.client.publish(TOPIC, b"x" * 10_000, qos=1)
    wait(lambda: peer.heard)
    assert time.monotonic() - begun_s > 0.5


@pytest.mark.parametrize("step", [1, 3, 100])
def test_packets_are_cut_out_of_any_stream(step):
    stream, packets, found = PUBLISH * 3 + b"\xc0\x00", Packets(), []
    for at in range(0, len(stream), step):
        found += packets.feed(stream[at : at + step])
    assert found == [PUBLISH] * 3 + [b"\xc0\x00"]
    assert topic_of(PUBLISH) == "some/topic"


def test_what_is_no_mqtt_is_told():
    with pytest.raises(OSError, match="not MQTT"):
        list(Packets().feed(b"\x30" + b"\xff" * 8))
