"""One MQTT connection: limits, refusals, losses, all against real sockets."""

import socket
import time

import pytest

from agent.core.clock import RealClock
from agent.core.errors import AuthRefused, UplinkDown
from agent.delivery.config import BrokerConfig
from agent.delivery.session import (
    Acked,
    Lost,
    MqttSession,
    Received,
    SessionOptions,
    Will,
    reason_words,
)
from tests.delivery.stub_broker import StubBroker


def session(port, client_id="s", **options):
    return MqttSession(BrokerConfig(port=port), SessionOptions(client_id, **options), RealClock())


def collect(opened, wanted, timeout_s=5.0):
    events = []
    deadline = time.monotonic() + timeout_s
    while len(events) < wanted and time.monotonic() < deadline:
        events += opened.poll(0.2)
    return events


@pytest.mark.broker
def test_many_messages_come_back_acknowledged_and_in_order(broker):
    talker, listener = session(broker.port, "t"), session(broker.port, "l")
    listener.connect()
    listener.subscribe(["x/+"])
    talker.connect()
    sent = 0
    waiting = set()
    while sent < 300 or waiting:
        while sent < 300 and len(waiting) < talker.receive_maximum:
            waiting.add(talker.publish("x/y", b"%d" % sent))
            sent += 1
        waiting -= {event.token for event in talker.poll(1.0) if event.code == 0}
    got = [event.payload for event in collect(listener, 300)]
    assert got == [b"%d" % number for number in range(300)]
    talker.close()
    listener.close()


@pytest.mark.broker
def test_the_session_is_resumed_with_what_was_queued(broker):
    listener = session(broker.port, "l")
    listener.connect()
    assert not listener.session_present
    listener.subscribe(["x"])
    listener.close()
    talker = session(broker.port, "t")
    talker.connect()
    talker.publish("x", b"meanwhile")
    collect(talker, 1)
    talker.close()
    again = session(broker.port, "l")
    again.connect()
    assert again.session_present
    assert collect(again, 1) == [Received("x", b"meanwhile")]
    again.close()


@pytest.mark.broker
def test_nobody_listening_is_told_by_mosquitto(mosquitto):
    talker = session(mosquitto.port)
    talker.connect()
    token = talker.publish("nobody/here", b"x")
    assert collect(talker, 1) == [Acked(token, 0x10)]
    assert talker.receive_maximum == 20
    talker.close()


@pytest.mark.broker
@pytest.mark.parametrize("is_orderly", [True, False])
def test_the_will_is_published_whichever_way_the_device_goes(mosquitto, is_orderly):
    listener = session(mosquitto.port, "l")
    listener.connect()
    listener.subscribe(["gone"])
    device = session(mosquitto.port, "d", will=Will("gone", b"dead", delay_s=0))
    device.connect()
    if is_orderly:
        device.close()
    else:
        device._client.socket().shutdown(socket.SHUT_RDWR)
    assert collect(listener, 1) == [Received("gone", b"dead")]
    device.close()
    listener.close()


@pytest.mark.broker
def test_a_killed_broker_is_a_loss_and_stays_one(broker):
    opened = session(broker.port)
    opened.connect()
    broker.kill()
    events = collect(opened, 1)
    assert [type(event) for event in events] == [Lost]
    assert [type(event) for event in opened.poll(0)] == [Lost]
    with pytest.raises(UplinkDown, match=f"broker 127.0.0.1:{broker.port}"):
        opened.publish("x", b"")
    opened.close()
    opened.close()


def test_nobody_there_is_told_with_host_and_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(UplinkDown, match=f"broker 127.0.0.1:{port}: Connection refused"):
        session(port).connect()


def test_an_unknown_host_is_told():
    config = BrokerConfig(host="no-such-host.invalid")
    with pytest.raises(UplinkDown, match="no-such-host"):
        MqttSession(config, SessionOptions("s"), RealClock()).connect()


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (0x86, AuthRefused, "Bad user name or password"),
        (0x87, AuthRefused, "Not authorized"),
        (0x8A, AuthRefused, "Banned"),
        (0x88, UplinkDown, "Server unavailable"),
        (0x89, UplinkDown, "Server busy"),
    ],
)
def test_a_refusing_broker_is_quoted(code, error, words):
    with StubBroker(connack=code) as stub, pytest.raises(error, match=words):
        session(stub.port).connect()


@pytest.mark.broker
def test_a_wrong_password_is_refused(mosquitto, tmp_path):
    from firmware_sim import broker as brokers

    (tmp_path / "users").write_text("")
    (tmp_path / "users").chmod(0o600)
    (tmp_path / "password").write_text("guess\n")
    mosquitto.stop()
    extra = f"allow_anonymous false\npassword_file {tmp_path / 'users'}"
    with brokers.start("mosquitto", directory=tmp_path / "strict", extra=extra) as strict:
        config = BrokerConfig(port=strict.port, user="cam-1", password_path=tmp_path / "password")
        with pytest.raises(AuthRefused) as caught:
            MqttSession(config, SessionOptions("s"), RealClock()).connect()
    assert "guess" not in str(caught.value)
    assert "ot authorized" in str(caught.value)


@pytest.mark.parametrize("code", [0x87, 0x80, 0x9E])
def test_a_refused_subscription_is_named(code):
    with StubBroker(suback=code) as stub:
        opened = session(stub.port)
        opened.connect()
        with pytest.raises(AuthRefused, match="subscription mine/#"):
            opened.subscribe(["mine/#"])
        opened.close()


def test_limits_of_the_connack_are_handed_up():
    with StubBroker(receive_maximum=7, max_packet=1000) as stub:
        opened = session(stub.port)
        opened.connect()
        assert (opened.receive_maximum, opened.max_packet_bytes) == (7, 1000)
        opened.close()
    with StubBroker() as stub:
        opened = session(stub.port)
        opened.connect()
        assert (opened.receive_maximum, opened.max_packet_bytes) == (65_535, 268_435_455)
        opened.close()
        time.sleep(0.05)
        assert stub.disconnects == [0]


def test_a_will_makes_a_goodbye_that_lets_it_count():
    with StubBroker() as stub:
        opened = session(stub.port, will=Will("gone", b"x"))
        opened.connect()
        opened.close()
        deadline = time.monotonic() + 2
        while not stub.disconnects and time.monotonic() < deadline:
            time.sleep(0.01)
        assert stub.disconnects == [4]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x00",
        b"\x40\x02\x00",
        b"\x30\x03\x00\x09a",
        b"\x30\x04\x00\x01\xff\x00",
        b"\x20\xff\xff\xff\xff\xff\x7f",
        b"\x90\x00",
        b"\x40\x03\x00\x01\x00\xff\xff\xff\xff",
        b"\xf0\x01\x00",
        bytes(range(256)),
    ],
)
def test_garbage_from_the_broker_ends_the_connection_at_worst(garbage):
    with StubBroker() as stub:
        stub.after_connack = garbage
        opened = session(stub.port)
        try:
            opened.connect()
            events = opened.poll(0.1)
        except UplinkDown:
            events = []
        assert all(isinstance(event, Lost | Received | Acked) for event in events)
        opened.close()


def test_a_broker_that_never_answers_the_connect_times_out():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(UplinkDown, match="no answer in"):
            session(silent.getsockname()[1], connect_timeout_s=0.3).connect()
        assert time.monotonic() - begun < 2


def test_reason_codes_have_words():
    assert reason_words(0x87) == "0x87 Not authorized"
    assert reason_words(0xEE) == "0xEE"


def test_publishing_before_connecting_is_told():
    with pytest.raises(UplinkDown, match="not connected"):
        session(1).publish("x", b"")
