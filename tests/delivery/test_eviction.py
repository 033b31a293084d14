"""A full outbox: thinned before it is emptied, and every number that went is told."""

import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.core.clock import SimClock
from agent.core.errors import OutboxFull
from agent.core.model import Lane, Message
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.spans import MOST_MARKED
from agent.core.store import Store
from agent.delivery import eviction, removals
from agent.delivery.eviction import GAP_KIND
from agent.delivery.outbox import Outbox
from agent.delivery.removals import Span
from agent.receiver.gaps import runs_of
from tests.delivery.test_outbox import EVENT, TOPICS, alarm, small_store

BEAT = json.loads((Path(__file__).parent / "beat.json").read_text())


def numbers_of(item):
    return {number for first, last in runs_of(item) for number in range(first, last + 1)}


def envelopes(store):
    with store.reading() as connection:
        rows = connection.execute("SELECT payload FROM outbox ORDER BY id").fetchall()
    return [json.loads(row["payload"]) for row in rows]


def told(envelopes):
    """Give the numbers that gap records name, by boot and lane; no number twice."""
    found = Counter()
    for envelope in envelopes:
        if envelope["kind"] == GAP_KIND:
            for item in envelope["body"]["removed"]:
                found.update((item["boot"], item["lane"], seq) for seq in numbers_of(item))
    assert not found or max(found.values()) == 1, "told twice"
    return set(found)


def noted(store, boots):
    """Give the numbers that the box knows to have removed, by boot and lane."""
    with store.reading() as connection:
        return {
            (boot, lane, number)
            for boot in boots
            for lane in ("telemetry", "backfill", "state")
            for number in removals.within(connection, Span(boot, lane, 1, 1 << 30))
        }


def number_of(envelope):
    return (envelope["boot"], envelope["lane"], envelope["seq"])


@pytest.fixture
def sim():
    return SimClock()


def sample(number, kind="sample"):
    return Message(Lane.TELEMETRY, kind, {"n": number, "pad": "x" * 400})


def test_the_oldest_is_thinned_first_and_every_number_that_went_is_told(tmp_path, sim):
    store = small_store(tmp_path, sim)
    outbox = Outbox(store, TOPICS, sim, boot=3)
    alarms = [outbox.put(alarm(reason="x" * 200)) for _ in range(100)]
    put = 0
    while outbox.depths()["state"] == 0:
        for _ in range(10):
            sim.advance(1)
            outbox.put(sample(put))
            put += 1
    kept = envelopes(store)
    store.close()
    assert {envelope["id"] for envelope in kept} >= set(alarms)
    left = [envelope["body"]["n"] for envelope in kept if envelope["kind"] == "sample"]
    steps = Counter(after - before for before, after in itertools.pairwise(left))
    assert set(steps) <= {1, 2, 3, 4, 5, 16}, "evenly: nowhere a hole"
    assert left[-200:] == list(range(put - 200, put)), "the newest are all there"
    (gap,) = [envelope["body"] for envelope in kept if envelope["kind"] == GAP_KIND]
    gone = {seq for _, _, seq in told(kept)}
    assert gone == set(range(1, put + 1)) - {number + 1 for number in left}
    assert gap["state"] == "evicted"
    assert f"{len(gone)} messages removed: {len(gone)} of telemetry, boot 3" in gap["detail"]


def test_beats_are_thinned_before_telemetry_and_a_rare_kind_stays(tmp_path, sim):
    store = small_store(tmp_path, sim)
    outbox = Outbox(store, TOPICS, sim, boot=3)
    put = Counter()

    def put_some(connection):
        for _ in range(20):
            sim.advance(1)
            for kind in ("beat", *["sample"] * 4, *["rare"] * (put["beat"] % 100 == 0)):
                message = Message(Lane.TELEMETRY, "beat", BEAT) if kind == "beat" else None
                outbox.put_in(connection, message or sample(1, kind))
                put[kind] += 1

    while outbox.depths()["state"] < 3:
        store.write(put_some)
    left = Counter(envelope["kind"] for envelope in envelopes(store))
    store.close()
    assert left["beat"] / put["beat"] < left["sample"] / put["sample"]
    assert left["beat"] > 5
    assert put["rare"] - 1 <= left["rare"] <= put["rare"]


def test_when_all_is_thin_the_oldest_goes_whole(tmp_path, sim):
    store = small_store(tmp_path, sim)
    outbox = Outbox(store, TOPICS, sim, boot=3)

    def put_samples(connection):
        for number in range(800):
            sim.advance(1)
            outbox.put_in(connection, sample(number))

    def put_alarms(connection):
        for _ in range(20):
            outbox.put_in(connection, alarm(reason="x" * 250))

    def fill_with_alarms():
        while True:
            store.write(put_alarms)

    store.write(put_samples)
    with pytest.raises(OutboxFull):
        fill_with_alarms()
    kept = envelopes(store)
    store.close()
    assert [envelope for envelope in kept if envelope["kind"] == "sample"] == []
    assert {seq for _, lane, seq in told(kept) if lane == "telemetry"} == set(range(1, 801))


def test_where_both_lanes_go_both_are_told(tmp_path, sim):
    store = small_store(tmp_path, sim)
    outbox = Outbox(store, TOPICS, sim, boot=3)

    def put_both(connection):
        for _ in range(20):
            sim.advance(1)
            outbox.put_in(connection, sample(1))
            outbox.put_in(connection, Message(Lane.BACKFILL, "sample", {"pad": "x" * 400}))

    while outbox.depths()["state"] == 0:
        store.write(put_both)
    kept = envelopes(store)
    store.close()
    (gap,) = [envelope["body"] for envelope in kept if envelope["kind"] == GAP_KIND]
    assert {item["lane"] for item in gap["removed"]} == {"telemetry", "backfill"}
    assert "of telemetry" in gap["detail"]
    assert "of backfill" in gap["detail"]


class Ledger(RuleBasedStateMachine):
    """Puts, room being made, deliveries and restarts, in any order, on a small database."""

    def __init__(self):
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.clock = SimClock()
        path = Path(self.folder.name) / "outbox.db"
        self.store = Store(path, DEVICE_MIGRATIONS, self.clock, max_bytes=400_000)
        self.store.open()
        self.boot = 0
        self.delivered = []
        self.restart()

    def teardown(self):
        self.store.close()
        self.folder.cleanup()

    @rule()
    def restart(self):
        self.boot += 1
        self.outbox = Outbox(self.store, TOPICS, self.clock, self.boot)

    @rule(
        count=st.integers(1, 150),
        kinds=st.lists(st.sampled_from(("beat", "sample", "rare", "late")), min_size=1, max_size=4),
        size=st.integers(0, 900),
    )
    def put(self, count, kinds, size):
        body = {"pad": "x" * size}

        def change(connection):
            for number in range(count):
                self.clock.advance(1)
                kind = kinds[number % len(kinds)]
                lane = Lane.BACKFILL if kind == "late" else Lane.TELEMETRY
                self.outbox.put_in(
                    connection, Message(lane, kind, BEAT if kind == "beat" else body)
                )

        self._try(change)

    @rule(count=st.integers(1, 60))
    def put_evidence(self, count):
        message = Message(Lane.ALARM, "event/zone_enter", EVENT, needs_receipt=True)
        self._try(
            lambda connection: [self.outbox.put_in(connection, message) for _ in range(count)]
        )

    def _try(self, change):
        try:
            self.store.write(change)
        except OutboxFull:
            return  # all of it was taken back, numbers too

    @rule(limit=st.integers(1, 400))
    def deliver(self, limit):
        rows = self.outbox.take(limit)
        self.delivered += [json.loads(row.payload) for row in rows]
        self.outbox.accept([row.row_id for row in rows])
        self.outbox.accept_receipt([row.message_id for row in rows])

    @rule()
    def set_one_aside(self):
        for row in self.outbox.take(1):
            self.outbox.reject(row.row_id, "refused")

    @invariant()
    def every_number_is_delivered_or_here_or_told(self):
        here = envelopes(self.store)
        named = told([*self.delivered, *here])
        gone = noted(self.store, range(1, self.boot + 1))
        assert named <= gone
        if not any(lane == "state" for _, lane, _ in gone):  # no record had to go
            assert named == gone
        sent = Counter(map(number_of, self.delivered))
        waiting = Counter(map(number_of, here))
        assert not sent or max(sent.values()) == 1
        assert not waiting or max(waiting.values()) == 1
        assert not set(sent) & set(waiting)
        assert not gone & (set(sent) | set(waiting))
        last = {}
        for boot, lane, seq in {*gone, *sent, *waiting}:
            last[boot, lane] = max(seq, last.get((boot, lane), 0))
        for (boot, lane), highest in last.items():
            found = {s for b, ln, s in {*gone, *sent, *waiting} if (b, ln) == (boot, lane)}
            assert found == set(range(1, highest + 1)), "no hole"

    @invariant()
    def the_database_keeps_within_its_bound(self):
        with self.store.reading() as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
        assert pages * 4096 <= 400_000


Ledger.TestCase.settings = settings(
    max_examples=12,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestLedger = Ledger.TestCase


def test_the_largest_record_fits_into_a_message(store, clock):
    outbox = Outbox(store, TOPICS, clock, boot=1)
    every_second = b"\xaa" * (MOST_MARKED // 8)
    gone = [
        Span((1 << 53) - 1, "telemetry", at, at + MOST_MARKED - 1, every_second)
        for at in range(1, 1 + 65 * MOST_MARKED, MOST_MARKED)
    ]
    largest, rest = eviction.records("evicted", 1, gone)
    outbox.put(largest)
    assert len(largest.body["removed"]) == 64
    assert len(rest.body["removed"]) == 1


def test_records_without_end_do_not_fill_the_box_and_nothing_goes_unnoted(
    tmp_path, sim, monkeypatch
):
    monkeypatch.setattr(eviction, "BLOCK_ROWS", 20)
    monkeypatch.setattr(eviction, "LEAST_ROWS", 4)
    store = small_store(tmp_path, sim)
    outbox = Outbox(store, TOPICS, sim, boot=3)

    def put_many(connection):
        for number in range(500):
            sim.advance(1)
            outbox.put_in(connection, sample(number))

    for _ in range(18):
        store.write(put_many)
    kept = envelopes(store)
    size_bytes = sum(len(json.dumps(item)) for item in kept if item["kind"] == GAP_KIND)
    here = {number_of(envelope) for envelope in kept}
    gone = noted(store, [3])
    store.close()
    assert size_bytes < 80_000
    assert told(kept) < gone, "older records have gone, what they told has not"
    assert not here & gone
    for lane in ("telemetry", "state"):
        found = {seq for _, name, seq in here | gone if name == lane}
        assert found == set(range(1, max(found) + 1))
