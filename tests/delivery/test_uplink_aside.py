"""Rows that were set aside get another chance: by another limit, or when somebody says so."""

import pytest

from agent.core.model import Lane, Message
from agent.delivery.outbox import Outbox
from firmware_sim import broker as brokers
from tests.delivery.centre import Centre, Running, until
from tests.delivery.stub_broker import StubBroker
from tests.delivery.test_uplink import TOPICS, put_samples, uplink, waiting


@pytest.fixture
def outbox(store, clock):
    return Outbox(store, TOPICS, clock, boot=1)


@pytest.mark.broker
def test_a_row_too_large_waits_for_a_broker_that_takes_it(mosquitto, outbox, tmp_path):
    outbox.put(Message(Lane.STATE, "sample", {"pad": "x" * 5000}))
    with brokers.start("mosquitto", directory=tmp_path / "b", extra="max_packet_size 4000") as one:
        centre = Centre(one.port, TOPICS)
        for _ in range(2):  # a start of its own changes nothing
            with Running(uplink(one.port, outbox, tmp_path)) as running:
                assert until(lambda: running.worker.status().link.state == "connected")
                assert until(lambda: waiting(outbox) == outbox.depths()["quarantine"] == 1)
        centre.stop()
    centre = Centre(mosquitto.port, TOPICS)
    with Running(uplink(mosquitto.port, outbox, tmp_path)):
        assert until(lambda: waiting(outbox) == 0)
    centre.stop()


def test_a_row_set_aside_goes_again_at_once_when_somebody_says_so(outbox, store, tmp_path):
    put_samples(outbox, 1)
    row = outbox.take(1)[0]
    for _ in range(4):
        outbox.keep(row.row_id)
    codes = iter([0x87])
    with (
        StubBroker(acks=lambda topic: next(codes, 0) if "sample" in topic else 0) as stub,
        Running(uplink(stub.port, outbox, tmp_path)) as running,
    ):
        assert until(lambda: waiting(outbox) == outbox.depths()["quarantine"] == 1)
        change = "UPDATE outbox SET quarantine = NULL, tries = 0"
        store.write(lambda connection: connection.execute(change))
        running.worker.retry([row.row_id])
        assert until(lambda: waiting(outbox) == 0)
