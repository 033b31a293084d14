"""Every lane gets its share of the link, on a real broker."""

import pytest

from agent.core.model import Lane, Message
from agent.delivery.outbox import Outbox
from tests.delivery.centre import Centre, Running, until
from tests.delivery.test_outbox import EVENT
from tests.delivery.test_uplink import TOPICS, uplink, waiting


@pytest.mark.broker
def test_a_storm_of_alarms_starves_neither_states_nor_telemetry(embedded, store, clock, tmp_path):
    """5,000 alarms stood first; by strict order all of them would have gone before."""
    earlier, outbox = Outbox(store, TOPICS, clock, boot=1), Outbox(store, TOPICS, clock, boot=2)

    def fill(connection):
        for number in range(20):
            earlier.put_in(connection, Message(Lane.TELEMETRY, "late", {"n": number}))
        for number in range(5000):
            body = EVENT | {"start_utc_ms": number}
            outbox.put_in(connection, Message(Lane.ALARM, "event/zone_enter", body))
        for number in range(20):
            outbox.put_in(connection, Message(Lane.STATE, "parts", {"n": number}))
            outbox.put_in(connection, Message(Lane.TELEMETRY, "sample", {"n": number}))

    store.write(fill)
    centre = Centre(embedded.port, TOPICS)
    with Running(uplink(embedded.port, outbox, tmp_path, receipt_timeout_s=30)):
        assert until(lambda: waiting(outbox) == 0, 60), outbox.depths()
        assert until(lambda: len(centre.ids()) == 5061, 30), "with the birth"
    kinds = [topic.removeprefix(f"{TOPICS.root}/") for topic, _ in centre.seen]
    last = {kind: len(kinds) - kinds[::-1].index(kind) for kind in ("parts", "sample", "late")}
    assert last["parts"] < 500, "a fifth is theirs"
    assert last["sample"] < 500
    assert last["late"] < 1500
    first = next(n for n, kind in enumerate(kinds) if kind == "event/zone_enter")
    assert first <= 3, "after birth and death's end"
    centre.stop()
