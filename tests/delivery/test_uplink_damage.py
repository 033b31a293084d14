"""Rows of which the disk has changed a byte: the column is read from the message, or it is told."""

import pytest

from agent.delivery.outbox import Outbox
from tests.delivery.centre import Centre, Running, row_receipt, until
from tests.delivery.test_uplink import TOPICS, put_alarms, uplink


@pytest.fixture
def outbox(store, clock):
    return Outbox(store, TOPICS, clock, boot=1)


@pytest.mark.broker
@pytest.mark.parametrize(("part", "of"), [("mono_ms", "envelope"), ("event_id", "event")])
def test_a_row_that_the_disk_has_changed_is_set_aside_when_nobody_signs_for_it(
    broker, outbox, store, tmp_path, part, of
):
    centre = Centre(broker.port, TOPICS, signs=False)
    bad, good = put_alarms(outbox, 2)
    damage = "UPDATE outbox SET payload = CAST(replace(payload, ?, 'other') AS BLOB)"
    damage += " WHERE message_id = ?"
    store.write(lambda connection: connection.execute(damage, (part, bad)).rowcount)
    with Running(uplink(broker.port, outbox, tmp_path, receipt_timeout_s=0.2)):
        assert until(lambda: outbox.depths()["quarantine"] == 1)
        assert until(lambda: len(centre.rows[good]) >= 3)
    assert outbox.depths()["alarm"] == 1
    with store.reading() as connection:
        (reason,) = connection.execute("SELECT max(quarantine) FROM outbox").fetchone()
    assert reason.startswith(f"damaged: {of}:")
    centre.stop()


@pytest.mark.broker
@pytest.mark.parametrize(
    "change",
    ["topic = replace(topic, 'zone', 'zonf')", "message_id = 'f' || substr(message_id, 2)"],
)
def test_a_column_that_the_disk_has_changed_is_read_from_the_message(
    embedded, outbox, store, tmp_path, change
):
    centre = Centre(embedded.port, TOPICS, signs=False)
    (message_id,) = put_alarms(outbox, 1)
    before = row_of(store)
    store.write(lambda connection: connection.execute(f"UPDATE outbox SET {change}").rowcount)
    assert row_of(store) != before
    with Running(uplink(embedded.port, outbox, tmp_path, receipt_timeout_s=0.2)):
        assert until(lambda: row_of(store) == before)
        centre.send(TOPICS.receipt, row_receipt([message_id]))
        assert until(lambda: outbox.depths()["alarm"] == 0)
    centre.stop()


def row_of(store):
    with store.reading() as connection:
        return tuple(connection.execute("SELECT message_id, topic FROM outbox").fetchone())
