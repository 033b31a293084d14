"""Batches at a broker that says what the test tells it to: nothing leaves on its word alone."""

import json
import threading
import time

import pytest

from agent.core.clock import RealClock
from agent.delivery import batch
from agent.delivery.outbox import Outbox
from tests.delivery.centre import RIGHT, WRONG, Running, row_receipt, until
from tests.delivery.stub_broker import StubBroker
from tests.delivery.test_uplink import TOPICS, put_samples, uplink, waiting


@pytest.fixture
def later(store):
    """Give the outbox of a box that was off the air in its boot 1, with 300 rows of then."""
    put_samples(Outbox(store, TOPICS, RealClock(), boot=1), 300)
    return Outbox(store, TOPICS, RealClock(), boot=2)


def batches(stub):
    return [payload for topic, payload, _ in list(stub.published) if "/backfill/" in topic]


def alone(stub):
    return [payload for topic, payload, _ in list(stub.published) if topic == TOPICS.up("sample")]


def test_a_puback_forgets_nothing_and_a_true_receipt_everything(later, tmp_path):
    with (
        StubBroker() as stub,
        Running(uplink(stub.port, later, tmp_path, receipt_timeout_s=60)) as running,
    ):
        assert until(lambda: len(batches(stub)) == 1)
        assert until(lambda: running.worker.status().in_flight == 0)
        time.sleep(0.2)
        assert later.depths()["telemetry"] == 300
        assert len(batches(stub)) == 1, "the first one goes alone"
        number = batch.batch_id(batches(stub)[0])
        stub.publish(TOPICS.receipt, json.dumps(row_receipt([number], sig=WRONG)).encode())
        assert until(lambda: running.worker.status().bad_receipts == 1)
        assert later.depths()["telemetry"] == 300
        stub.publish(TOPICS.receipt, json.dumps(row_receipt([number], sig=RIGHT)).encode())
        assert until(lambda: later.depths()["telemetry"] == 300 - batch.MOST_ROWS)
        assert until(lambda: len(batches(stub)) == 2)
        assert alone(stub) == []


@pytest.mark.parametrize("code", [0x10, 0x87, 0x99])
def test_a_broker_that_takes_no_batches_gets_every_row_alone(code, later, tmp_path):
    with (
        StubBroker(acks=lambda topic: code if "backfill" in topic else 0) as stub,
        Running(uplink(stub.port, later, tmp_path, receipt_timeout_s=60)),
    ):
        assert until(lambda: waiting(later) == 0)
        assert len(batches(stub)) == 1
        assert len(alone(stub)) == 300
        assert later.depths()["quarantine"] == 0


def test_a_quota_lets_the_batch_wait_and_it_goes_again(later, tmp_path):
    is_over = threading.Event()
    with (
        StubBroker(
            acks=lambda topic: 0x97 if "backfill" in topic and not is_over.is_set() else 0
        ) as stub,
        Running(uplink(stub.port, later, tmp_path, receipt_timeout_s=60)),
    ):
        assert until(lambda: len(batches(stub)) >= 2)
        assert alone(stub) == []
        is_over.set()
        assert until(lambda: len(batches(stub)) >= 3)
        assert set(map(batch.batch_id, batches(stub))) == {batch.batch_id(batches(stub)[0])}


def test_a_broker_that_never_acknowledges_a_batch_gets_rows_in_the_end(later, tmp_path):
    with (
        StubBroker(acks=lambda topic: None if "backfill" in topic else 0) as stub,
        Running(uplink(stub.port, later, tmp_path, ack_timeout_s=0.4)),
    ):
        assert until(lambda: stub.connects >= 2)
        assert later.depths()["telemetry"] == 300
        assert alone(stub) == []
        assert until(lambda: later.depths()["telemetry"] == 0), "rows alone pass"
        assert len(batches(stub)) == 3
