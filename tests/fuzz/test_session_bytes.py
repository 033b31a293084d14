"""What a broker, or who sits in its place, may send instead of MQTT: the session ends at worst."""

import struct
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.clock import RealClock
from agent.core.errors import AuthRefused, UplinkDown
from agent.delivery.config import BrokerConfig
from agent.delivery.session import (
    READ_BYTES_PER_POLL,
    Acked,
    Lost,
    MqttSession,
    Received,
    SessionOptions,
)
from tests.delivery.centre import until
from tests.delivery.stub_broker import StubBroker, _varint
from tests.fuzz.hostile import examples

LIMIT_BYTES = 512 * 1024


@pytest.fixture(scope="module")
def stub():
    with StubBroker() as started:
        yield started


def opened(stub):
    options = SessionOptions("cam-1", connect_timeout_s=2.0, max_incoming_bytes=LIMIT_BYTES)
    made = MqttSession(BrokerConfig(port=stub.port), options, RealClock())
    made.connect()
    return made


BODIES = st.binary(max_size=40)
PACKETS = st.builds(
    lambda kind, flags, body, lie: (
        bytes([kind << 4 | flags]) + _varint(max(0, len(body) + lie)) + body
    ),
    st.integers(0, 15),
    st.integers(0, 15),
    BODIES
    | st.builds(  # publishes: topic, properties, payload
        lambda topic, properties, payload: (
            struct.pack("!H", len(topic)) + topic + _varint(len(properties)) + properties + payload
        ),
        st.binary(max_size=12),
        st.binary(max_size=12),
        BODIES,
    )
    | st.builds(  # answers: packet id, code, properties
        lambda mid, code, rest: struct.pack("!HB", mid, code) + rest,
        st.integers(0, 65_535),
        st.integers(0, 255),
        BODIES,
    ),
    st.sampled_from((0, 0, 0, 0, 1, -1, 200, 1 << 27)),
)


@given(packets=st.lists(PACKETS, min_size=1, max_size=4).map(b"".join) | st.binary(max_size=200))
@examples(120)
def test_any_bytes_after_the_handshake(stub, packets):
    stub.after_connack = packets
    events = []
    try:
        session = opened(stub)
        for _ in range(3):
            events += session.poll(0.005)
        session.close()
    except (UplinkDown, AuthRefused) as error:
        events.append(Lost(str(error)))
    assert all(isinstance(event, Acked | Received | Lost) for event in events)
    stub.after_connack = b""
    session = opened(stub)
    session.publish("x", b"still there")
    assert until(lambda: any(isinstance(each, Acked) for each in session.poll(0.05)))
    session.close()


@given(answer=st.binary(max_size=60), is_framed=st.booleans())
@examples(60)
def test_any_answer_to_the_connect(answer, is_framed):
    class Odd(StubBroker):
        def send(self, packet):
            if packet[:1] == b"\x20":
                packet = (b"\x20" + _varint(len(answer)) if is_framed else b"") + answer
            super().send(packet)
            self._socket.shutdown(1)

    with Odd() as odd:
        told = f"127.0.0.1:{odd.port}"
        try:
            opened(odd).close()
        except (UplinkDown, AuthRefused) as error:
            told = str(error)
        assert f"127.0.0.1:{odd.port}" in told


def publish(topic, payload, claimed=None):
    body = struct.pack("!H", len(topic)) + topic + b"\x00" + payload
    return b"\x30" + _varint(len(body) if claimed is None else claimed) + body


def test_a_packet_larger_than_we_said_ends_the_connection_before_it_is_read():
    with StubBroker() as stub:
        stub.after_connack = publish(b"x", b"z" * 1000, claimed=200 << 20)
        session = opened(stub)
        found = []
        assert until(lambda: found.extend(session.poll(0.05)) or found)
        assert isinstance(found[-1], Lost)
        assert "packet of 209715200 bytes; allowed: 524288" in found[-1].reason
        session.close()


def test_a_packet_of_the_size_we_said_is_read():
    payload = b"z" * (LIMIT_BYTES - 10)
    with StubBroker() as stub:
        stub.after_connack = publish(b"x", payload)
        session = opened(stub)
        found = []
        assert until(lambda: found.extend(session.poll(0.05)) or found)
        assert found == [Received("x", payload)]
        session.close()


def test_a_flood_is_taken_in_bounded_portions():
    count, size = 60, 400_000
    with StubBroker() as stub:
        session = opened(stub)
        flood = threading.Thread(target=stub.send, args=(publish(b"x", b"z" * size) * count,))
        flood.start()
        sizes = []
        while sum(sizes) < count * size:
            events = session.poll(5)
            assert not [event for event in events if isinstance(event, Lost)]
            sizes.append(sum(len(event.payload) for event in events))
        flood.join()
        assert max(sizes) < READ_BYTES_PER_POLL + size
        session.close()
