"""Every lane gets its share of the link, on a real broker."""

import pytest

from agent.core.model import Lane, Message
from agent.delivery.outbox import Outbox
from tests.delivery.centre import Centre, Running, until
from tests.delivery.test_outbox import EVENT
from tests.delivery.test_uplink import TOPICS, uplink

STORM = 3000


@pytest.fixture
def storm(store, clock):
    """Give an outbox in which alarms stand before 20 rows of each other lane."""
    earlier, outbox = Outbox(store, TOPICS, clock, boot=1), Outbox(store, TOPICS, clock, boot=2)

    def fill(connection):
        for number in range(20):
            earlier.put_in(connection, Message(Lane.TELEMETRY, "late", {"n": number}))
        for number in range(STORM):
            body = EVENT | {"start_utc_ms": number}
            outbox.put_in(connection, Message(Lane.ALARM, "event/zone_enter", body))
        for number in range(20):
            outbox.put_in(connection, Message(Lane.STATE, "parts", {"n": number}))
            outbox.put_in(connection, Message(Lane.TELEMETRY, "sample", {"n": number}))

    store.write(fill)
    return outbox


def delivered(port, outbox, tmp_path, count, **changes):
    """Deliver until the centre has so many messages; gives their kinds in the order they came."""
    centre = Centre(port, TOPICS)
    with Running(uplink(port, outbox, tmp_path, receipt_timeout_s=30, **changes)):
        assert until(lambda: len(centre.ids()) == count, 60), len(centre.ids())
    centre.stop()
    return [topic.removeprefix(f"{TOPICS.root}/") for topic, _ in centre.seen]


@pytest.mark.broker
def test_a_storm_of_alarms_starves_neither_states_nor_telemetry(embedded, storm, tmp_path):
    """By strict order all of the storm would have gone before."""
    kinds = delivered(embedded.port, storm, tmp_path, STORM + 61, batch="off")
    last = {kind: len(kinds) - kinds[::-1].index(kind) for kind in ("parts", "sample", "late")}
    assert last["parts"] < 500, "a fifth is theirs"
    assert last["sample"] < 500
    assert last["late"] < 1500
    first = next(n for n, kind in enumerate(kinds) if kind == "event/zone_enter")
    assert first <= 3, "after birth and death's end"


@pytest.mark.broker
def test_a_storm_of_alarms_leaves_room_for_a_batch(embedded, storm, tmp_path):
    kinds = delivered(embedded.port, storm, tmp_path, STORM + 41)
    assert 10 < kinds.index("backfill/late") < 1500
