"""The uplink against real brokers, and against one that misbehaves at the wire."""

import json
import random
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core.clock import RealClock
from agent.core.errors import OutboxFull
from agent.core.model import Lane, Message
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.core.wire import Topics
from agent.delivery.config import BrokerConfig, DeliveryConfig
from agent.delivery.outbox import Outbox
from agent.delivery.uplink import Uplink, live_sessions
from firmware_sim import broker as brokers
from tests.delivery.centre import (
    RIGHT,
    WRONG,
    Centre,
    Running,
    check_rows,
    row_receipt,
    until,
)
from tests.delivery.stub_broker import StubBroker
from tests.delivery.test_outbox import EVENT

TOPICS = Topics("plaza", "cam-1")
BIRTH = {
    "agent": "outpost 0.1.0",
    "site": "plaza",
    "role": "camera",
    "cameras": ["west"],
    "model": "m",
    "keyid": "ed25519:" + "0" * 32,
}


def config(tmp_path, **changes):
    return DeliveryConfig(
        receiver_key_path=tmp_path / "receiver.pub",
        **({"reconnect_max_s": 0.2, "receipt_timeout_s": 0.5} | changes),
    )


@pytest.fixture
def outbox(store, clock):
    return Outbox(store, TOPICS, clock, boot=1)


def uplink(port, outbox, tmp_path, **changes):
    clock, settled = RealClock(), config(tmp_path, **changes)
    sessions = live_sessions(BrokerConfig(port=port), settled, TOPICS, 1, clock)
    return Uplink(sessions, outbox, check_rows, lambda: BIRTH, clock, settled)


def put_alarms(outbox, count):
    return {
        outbox.put(
            Message(Lane.ALARM, "event/zone_enter", EVENT | {"start_utc_ms": n}, needs_receipt=True)
        )
        for n in range(count)
    }


def put_samples(outbox, count):
    return {outbox.put(Message(Lane.TELEMETRY, "sample", {"n": n})) for n in range(count)}


def waiting(outbox):
    return sum(outbox.depths().values())


@pytest.mark.broker
def test_rows_go_out_once_and_leave_on_receipt_or_acknowledgement(broker, outbox, tmp_path):
    ids = put_alarms(outbox, 40) | put_samples(outbox, 40)
    centre = Centre(broker.port, TOPICS)
    with Running(uplink(broker.port, outbox, tmp_path, receipt_timeout_s=30)) as running:
        assert until(lambda: waiting(outbox) == 0)
        assert until(lambda: running.worker.status().receipted == 40)  # counted once it is stored
        status = running.worker.status()
    assert centre.ids() >= ids
    assert all(len(envelopes) == 1 for envelopes in centre.rows.values())
    assert centre.bodies("birth") == [BIRTH]
    assert status.link.state == "connected"
    assert (status.receipted, status.accepted, status.published) == (40, 41, 82)
    assert status.last_receipt_utc_ns is not None
    centre.stop()


@pytest.mark.broker
def test_without_a_receipt_a_row_stays_and_goes_again_with_the_same_id(broker, outbox, tmp_path):
    centre = Centre(broker.port, TOPICS, signs=False)
    (message_id,) = put_alarms(outbox, 1)
    with Running(uplink(broker.port, outbox, tmp_path, receipt_timeout_s=0.2)) as running:
        assert until(lambda: len(centre.rows[message_id]) >= 3)
        assert outbox.depths()["alarm"] == 1
        times = len(centre.rows[message_id])
        assert times <= 5, "the wait doubles"
        first, *rest = centre.rows[message_id]
        assert all(envelope == first for envelope in rest)
        centre.send(TOPICS.receipt, row_receipt([message_id], sig=WRONG))
        assert until(lambda: running.worker.status().bad_receipts == 1)
        assert outbox.depths()["alarm"] == 1
        centre.send(TOPICS.receipt, row_receipt([message_id]))
        assert until(lambda: outbox.depths()["alarm"] == 0)
    centre.stop()


@pytest.mark.broker
@pytest.mark.crash
def test_nothing_is_lost_when_the_broker_is_killed_in_the_middle(broker, outbox, tmp_path):
    """The embedded broker forgets every session; duplicates carry the same id."""
    centre = Centre(broker.port, TOPICS)
    alarms = set()
    with Running(uplink(broker.port, outbox, tmp_path)):
        for round_number in range(1, 4):
            alarms |= put_alarms(outbox, 30)
            put_samples(outbox, 30)
            until(lambda wanted=50 * round_number: len(centre.ids()) > wanted, 1)
            broker.kill()
            alarms |= put_alarms(outbox, 5)
            broker.restart()
        assert until(lambda: waiting(outbox) == 0, 15), outbox.depths()
    assert centre.ids() >= alarms
    for envelopes in centre.rows.values():
        assert all(envelope == envelopes[0] for envelope in envelopes)
    centre.stop()


@pytest.mark.broker
def test_with_nobody_listening_mosquitto_says_so_and_every_row_stays(mosquitto, outbox, tmp_path):
    ids = put_alarms(outbox, 5) | put_samples(outbox, 300)
    with Running(uplink(mosquitto.port, outbox, tmp_path)) as running:
        assert until(lambda: running.worker.status().kept >= 5)
        time.sleep(0.5)
        status = running.worker.status()
        assert waiting(outbox) == 306, "with the birth"
        assert status.published < 150, "held topics are probed, not flooded"
        centre = Centre(mosquitto.port, TOPICS)
        assert until(lambda: waiting(outbox) == 0, 15), outbox.depths()
    assert centre.ids() >= ids
    centre.stop()


@pytest.mark.broker
def test_a_row_larger_than_the_broker_takes_is_set_aside_and_the_rest_goes(
    mosquitto, outbox, tmp_path
):
    mosquitto.stop()
    extra = "max_packet_size 4000"
    with brokers.start("mosquitto", directory=tmp_path / "small", extra=extra) as small:
        centre = Centre(small.port, TOPICS)
        outbox.put(Message(Lane.STATE, "sample", {"pad": "x" * 5000}))
        ids = put_alarms(outbox, 5) | put_samples(outbox, 5)
        with Running(uplink(small.port, outbox, tmp_path)) as running:
            assert until(lambda: waiting(outbox) == 1)
            assert running.worker.status().link.sessions == 1
        assert outbox.depths()["quarantine"] == 1
        assert centre.ids() >= ids
        centre.stop()


def test_the_row_set_aside_gets_another_chance_with_the_next_start(outbox, tmp_path):
    put_samples(outbox, 1)
    outbox.reject(outbox.take(1)[0].row_id, "too large")
    with StubBroker() as stub, Running(uplink(stub.port, outbox, tmp_path)):
        assert until(lambda: waiting(outbox) == 0)


@pytest.mark.parametrize("maximum", [1, 5, 20])
def test_the_receive_maximum_is_never_exceeded(maximum, outbox, tmp_path):
    put_samples(outbox, 120)
    held = []
    lock = threading.Lock()
    stub = StubBroker(receive_maximum=maximum, acks=lambda _: None)

    def answer():
        while len(held) < 122:
            time.sleep(0.002)
            with lock:
                for packet_id in sorted(stub.unacked)[:2]:
                    held.append(packet_id)
                    stub.puback(packet_id)

    with stub, Running(uplink(stub.port, outbox, tmp_path)):
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert until(lambda: waiting(outbox) == 0)
        thread.join(5)
    assert stub.most_unacked <= maximum
    assert stub.connects == 1


def test_backfill_takes_at_most_half_the_window(outbox, store, clock, tmp_path):
    put_samples(outbox, 100)
    later = Outbox(store, TOPICS, clock, boot=2)
    with StubBroker(acks=lambda _: None) as stub:
        worker = uplink(stub.port, later, tmp_path, window=20, batch="off")
        with Running(worker):
            until(lambda: stub.most_unacked >= 12)
            time.sleep(0.2)
            assert [topic.rsplit("/", 1)[1] for topic, _, _ in stub.published].count("sample") == 10
            put_alarms(later, 3)
            assert until(lambda: len(stub.published) == 15)
            assert stub.published[-1][0].endswith("event/zone_enter")


def test_a_broker_that_never_acknowledges_is_left_and_met_again(outbox, tmp_path):
    put_samples(outbox, 3)
    with (
        StubBroker(acks=lambda _: None) as stub,
        Running(uplink(stub.port, outbox, tmp_path, ack_timeout_s=0.3)) as running,
    ):
        assert until(lambda: stub.connects >= 3)
        assert until(lambda: "no acknowledgement in 0.3 s" in running.worker.status().link.reason)
        assert waiting(outbox) == 4
        stub.acks = lambda _: 0
        assert until(lambda: waiting(outbox) == 0)


def test_quota_exceeded_slows_down_and_loses_nothing(outbox, tmp_path):
    put_samples(outbox, 50)
    is_over = threading.Event()
    with (
        StubBroker(acks=lambda _: 0 if is_over.is_set() else 0x97) as stub,
        Running(uplink(stub.port, outbox, tmp_path, window=10)),
    ):
        assert until(lambda: len(stub.published) >= 10)
        time.sleep(0.4)
        assert len(stub.published) <= 20
        assert waiting(outbox) == 51
        is_over.set()
        assert until(lambda: waiting(outbox) == 0)
    assert stub.connects == 1


def test_a_row_the_broker_refuses_five_times_is_set_aside_others_go(outbox, tmp_path):
    put_alarms(outbox, 1)
    row = outbox.take(1)[0]
    for _ in range(4):
        outbox.keep(row.row_id)
    put_samples(outbox, 20)
    with (
        StubBroker(acks=lambda topic: 0x87 if "event" in topic else 0) as stub,
        Running(uplink(stub.port, outbox, tmp_path)) as running,
    ):
        assert until(lambda: waiting(outbox) == 1)
        assert outbox.depths()["quarantine"] == 1
        assert running.worker.status().set_aside == 1
    with outbox._store.reading() as connection:
        assert connection.execute("SELECT max(quarantine) FROM outbox").fetchone()[0] == (
            "refused by the broker: 0x87 Not authorized"
        )


def test_birth_and_state_are_repeated_on_every_connection(outbox, tmp_path):
    state = {"state": "streaming", "since_utc_ms": 1, "detail": ""}
    outbox.put(Message(Lane.STATE, "state/camera-west", state, is_retained=True))
    with StubBroker() as stub, Running(uplink(stub.port, outbox, tmp_path)):
        assert until(lambda: waiting(outbox) == 0)
        stub._socket.shutdown(2)
        assert until(lambda: stub.connects == 2 and len(stub.published) >= 6)
    kinds = [topic.removeprefix(TOPICS.root + "/") for topic, _, _ in stub.published]
    assert sorted(kinds) == sorted(["death", "birth", "state/camera-west"] * 2)
    births = [payload for topic, payload, _ in stub.published if topic.endswith("/birth")]
    assert births[0] == births[1]
    assert [payload for topic, payload, _ in stub.published if topic.endswith("/death")] == [
        b""
    ] * 2


@pytest.mark.broker
def test_death_is_left_behind_and_cleared_on_return(mosquitto, outbox, tmp_path):
    centre = Centre(mosquitto.port, TOPICS)
    settled = config(tmp_path)
    sessions = live_sessions(BrokerConfig(port=mosquitto.port), settled, TOPICS, 1, RealClock())
    session = sessions()
    session._options = session._options.__class__(
        client_id="cam-1",
        will=session._options.will.__class__(TOPICS.up("death"), session._options.will.payload, 0),
    )
    session.connect()
    session.close()
    assert until(
        lambda: any(topic.endswith("/death") and payload for topic, payload in centre.seen)
    )
    with Running(uplink(mosquitto.port, outbox, tmp_path)):
        assert until(lambda: centre.seen and (TOPICS.up("death"), b"") in centre.seen)
    death = next(p for t, p in centre.seen if t.endswith("/death") and p)
    assert json.loads(death) == {"sv": 1, "device": "cam-1", "boot": 1, "kind": "death"}
    centre.stop()


def test_reconnects_are_jittered_and_stop_is_prompt(outbox, tmp_path):
    worker = uplink(1, outbox, tmp_path, reconnect_max_s=60)
    with Running(worker) as running:
        assert until(lambda: worker.status().link.state == "waiting")
        assert "Connection refused" in worker.status().link.reason
        turns = running.turns
        assert until(lambda: running.turns > turns, 3)
        begun = time.monotonic()
    assert time.monotonic() - begun < 2
    assert worker.status().link.state == "stopped"


def test_a_broker_that_hangs_in_the_handshake_does_not_hold_up_the_stop(outbox, tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        worker = uplink(silent.getsockname()[1], outbox, tmp_path)
        with Running(worker):
            time.sleep(0.2)
            begun = time.monotonic()
        assert time.monotonic() - begun < 2


def test_a_refused_password_is_reported_and_tried_again(outbox, tmp_path):
    put_samples(outbox, 1)
    with (
        StubBroker(connack=0x86) as stub,
        Running(uplink(stub.port, outbox, tmp_path)) as running,
    ):
        assert until(lambda: stub.connects >= 2)
        assert running.worker.status().link.state == "refused"
        assert "Bad user name or password" in running.worker.status().link.reason
        stub.connack = 0
        assert until(lambda: waiting(outbox) == 0)


def test_a_receipt_that_overtakes_the_acknowledgement_counts(outbox, tmp_path):
    (message_id,) = put_alarms(outbox, 1)
    with (
        StubBroker(acks=lambda topic: None if "event" in topic else 0) as stub,
        Running(uplink(stub.port, outbox, tmp_path)) as running,
    ):
        assert until(lambda: any("event" in topic for topic, _, _ in stub.published))
        stub.publish(TOPICS.receipt, json.dumps(row_receipt([message_id])).encode())
        assert until(lambda: waiting(outbox) == 0)
        packet_id = next(i for topic, _, i in stub.published if "event" in topic)
        stub.puback(packet_id)
        assert until(lambda: running.worker.status().in_flight == 0)
        assert running.worker.status().awaited == 0


def test_alarms_overtake_a_backlog(outbox, tmp_path):
    put_samples(outbox, 1000)
    order = []
    with StubBroker(receive_maximum=10) as stub:
        stub.acks = lambda topic: order.append(topic) or time.sleep(0.001) or 0
        with Running(uplink(stub.port, outbox, tmp_path)):
            assert until(lambda: len(order) > 50)
            at = len(order)
            put_alarms(outbox, 1)
            assert until(lambda: any("event" in topic for topic in order))
            position = next(n for n, topic in enumerate(order) if "event" in topic)
    assert position - at < 150


def fill_up(outbox):
    """Evidence until the database takes no more."""
    ids = set()
    padded = EVENT | {"reason": "x" * 250}

    def put_for_ever():
        while True:
            ids.add(outbox.put(Message(Lane.ALARM, "event/x", padded, needs_receipt=True)))

    with pytest.raises(OutboxFull):
        put_for_ever()
    return ids


@pytest.mark.broker
def test_a_box_full_of_evidence_still_starts_and_delivers(embedded, clock, tmp_path):
    store = Store(tmp_path / "full.db", DEVICE_MIGRATIONS, clock, max_bytes=1 << 20)
    store.open()
    outbox = Outbox(store, TOPICS, clock, boot=1)
    ids = fill_up(outbox)
    centre = Centre(embedded.port, TOPICS)
    with Running(uplink(embedded.port, outbox, tmp_path, receipt_timeout_s=30)):
        assert until(lambda: outbox.depths()["alarm"] == 0)
    assert centre.ids() >= ids
    centre.stop()
    store.close()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 10_000,
        b'{"sv":1}',
        json.dumps(row_receipt(["0" * 32]) | {"ids": []}).encode(),
        json.dumps(row_receipt(["0" * 32]) | {"extra": 1}).encode(),
        json.dumps(row_receipt(["0" * 32]) | {"device": "\ud800"}).encode(),
        json.dumps(row_receipt(["../x"])).encode(),
        b"9" * 5000,
        b"null",
        b"1e999",
        b" " * 300_000,
    ],
)
def test_malformed_receipts_change_nothing(payload, outbox, tmp_path):
    put_alarms(outbox, 1)
    with StubBroker() as stub, Running(uplink(stub.port, outbox, tmp_path)) as running:
        assert until(lambda: len(stub.published) >= 2)
        stub.publish(TOPICS.receipt, payload)
        assert until(lambda: running.worker.status().bad_receipts == 1)
        assert running.worker.status().link.sessions == 1
        assert outbox.depths()["alarm"] == 1


def test_any_bytes_on_the_receipt_topic_change_nothing(outbox, tmp_path):
    put_alarms(outbox, 1)
    with StubBroker() as stub, Running(uplink(stub.port, outbox, tmp_path)) as running:
        assert until(lambda: len(stub.published) >= 2)
        sent = [0]

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(
            payload=st.binary(max_size=200)
            | st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(["sv", "ids", "device", "sig", "keyid", "receiver"]), inner
                    )
                ),
                max_leaves=8,
            ).map(lambda document: json.dumps(document).encode())
        )
        def send(payload):
            stub.publish(TOPICS.receipt, payload)
            sent[0] += 1

        send()
        assert until(lambda: running.worker.status().bad_receipts == sent[0])
        assert outbox.depths()["alarm"] == 1
        (row,) = [row for row in outbox.take(10) if row.lane is Lane.ALARM]
        stub.publish(TOPICS.receipt, json.dumps(row_receipt([row.message_id], sig=RIGHT)).encode())
        assert until(lambda: outbox.depths()["alarm"] == 0)


@pytest.mark.crash
@pytest.mark.broker
def test_random_kills_of_worker_and_broker(embedded, store, clock, outbox, tmp_path):
    dice = random.Random(7)
    centre = Centre(embedded.port, TOPICS)
    alarms = set()
    for _ in range(4):
        with Running(uplink(embedded.port, outbox, tmp_path)):
            alarms |= put_alarms(outbox, 20)
            time.sleep(dice.uniform(0.0, 0.15))
            if dice.random() < 0.5:
                embedded.kill()
                time.sleep(dice.uniform(0.0, 0.1))
                embedded.restart()
    with Running(uplink(embedded.port, outbox, tmp_path)):
        assert until(lambda: outbox.depths()["alarm"] == 0, 15)
    assert centre.ids() >= alarms
    centre.stop()
