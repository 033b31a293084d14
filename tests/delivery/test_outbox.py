"""The outbox keeps its word: durable, in order, by lane, bounded, and never without a record."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.core import wire
from agent.core.clock import RealClock, SimClock
from agent.core.errors import MalformedMessage, OutboxFull, StorageError
from agent.core.model import Lane, Message
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.core.wire import Topics
from agent.delivery.clockstate import kernel_clock
from agent.delivery.lanes import SCAN_ROWS, Ask
from agent.delivery.outbox import Outbox

TOPICS = Topics("plaza", "cam-1")
EVENT = {
    "event_id": "0" * 32,
    "camera": "west",
    "kind": "zone_enter",
    "rule": "r",
    "state": "closed",
    "start_utc_ms": 1,
    "end_utc_ms": 2,
    "label": "person",
    "score": 0.5,
    "tracks": [1],
    "measured": {},
    "model": "m",
    "reason": "",
}


def alarm(**more):
    return Message(Lane.ALARM, "event/zone_enter", EVENT | more, needs_receipt=True)


def sample(number=0, lane=Lane.TELEMETRY):
    return Message(lane, "sample", {"n": number})


def numbers(rows):
    return [json.loads(row.payload)["body"].get("n") for row in rows]


@pytest.fixture
def sim():
    return SimClock()


@pytest.fixture
def outbox(store, sim):
    return Outbox(store, TOPICS, sim, boot=3)


def test_the_envelope_is_complete_and_fits_its_schema(store, sim):
    outbox = Outbox(store, TOPICS, sim, 3, lambda: {"source": "gps", "error_ms": 2})
    message_id = outbox.put(alarm())
    (row,) = outbox.take(10)
    envelope = wire.decode("envelope", row.payload)
    assert envelope == {
        "sv": 1,
        "id": message_id,
        "device": "cam-1",
        "boot": 3,
        "lane": "alarm",
        "seq": 1,
        "t_utc_ms": sim.utc_ns() // 1_000_000,
        "clock": {"source": "gps", "error_ms": 2},
        "mono_ms": sim.mono_ns() // 1_000_000,
        "kind": "event/zone_enter",
        "body": EVENT,
    }
    assert row.topic == "outpost/1/plaza/cam-1/event/zone_enter"
    assert (row.message_id, row.lane, row.needs_receipt, row.tries) == (
        message_id,
        Lane.ALARM,
        True,
        0,
    )


def test_the_kernel_says_whether_it_is_synchronised():
    state = kernel_clock()
    assert state["source"] in ("ntp", "none")
    assert (state["source"] == "none") == (state["error_ms"] == -1)


def test_urgent_lanes_go_first_each_in_order(outbox):
    for number in range(3):
        outbox.put(sample(number))
        outbox.put(sample(number, Lane.STATE))
        outbox.put(alarm(start_utc_ms=number))
        outbox.put(sample(number, Lane.BACKFILL))
    rows = outbox.take(100)
    assert [row.lane for row in rows] == (
        [Lane.ALARM] * 3 + [Lane.STATE] * 3 + [Lane.TELEMETRY] * 3 + [Lane.BACKFILL] * 3
    )
    assert numbers(rows)[3:] == [0, 1, 2] * 3
    assert [row.row_id for row in outbox.take(2)] == [row.row_id for row in rows[:2]]


def test_old_telemetry_is_backfill_behind_the_new_and_at_most_half(outbox, sim):
    for number in range(10):
        outbox.put(sample(number))
    sim.advance(61)
    for number in range(100, 103):
        outbox.put(sample(number))
    rows = outbox.take(6)
    assert numbers(rows) == [100, 101, 102, 0, 1, 2]
    assert [row.lane for row in rows] == [Lane.TELEMETRY] * 3 + [Lane.BACKFILL] * 3
    assert numbers(outbox.take(4, exclude=[row.row_id for row in rows])) == [3, 4]


def test_telemetry_of_an_earlier_start_is_old_whatever_the_clocks_say(store, sim, outbox):
    outbox.put(sample(1))
    later = Outbox(store, TOPICS, sim, boot=4)
    later.put(sample(2))
    assert [(row.lane, number) for row, number in zip(later.take(10), (2, 1), strict=True)] == [
        (Lane.TELEMETRY, 2),
        (Lane.BACKFILL, 1),
    ]


def test_sequence_counts_by_start_and_lane_and_no_failure_burns_a_number(store, sim, outbox):
    def broken(connection):
        outbox.put_in(connection, sample(1))
        raise StorageError("the caller's own reason")

    outbox.put(sample(0))
    with pytest.raises(StorageError, match="own reason"):
        store.write(broken)
    outbox.put(sample(2))
    outbox.put(alarm())
    Outbox(store, TOPICS, sim, boot=4).put(sample(3))
    found = [
        (envelope["boot"], envelope["lane"], envelope["seq"])
        for envelope in (json.loads(row.payload) for row in outbox.take(100))
    ]
    assert sorted(found) == [
        (3, "alarm", 1),
        (3, "telemetry", 1),
        (3, "telemetry", 2),
        (4, "telemetry", 1),
    ]


def test_only_a_receipt_lets_go_of_a_row_that_needs_one(outbox):
    message_id = outbox.put(alarm())
    outbox.put(sample())
    rows = outbox.take(10)
    assert outbox.accept([row.row_id for row in rows]) == 1
    (left,) = outbox.take(10)
    assert left.message_id == message_id
    assert outbox.accept_receipt(["f" * 32]) == 0
    assert outbox.accept_receipt([message_id, message_id]) == 1
    assert outbox.take(10) == ()


def test_refusals_are_counted_and_a_row_set_aside_is_visible_until_released(outbox):
    outbox.put(alarm())
    (row,) = outbox.take(1)
    assert [outbox.keep(row.row_id), outbox.keep(row.row_id)] == [1, 2]
    assert outbox.take(1)[0].tries == 2
    outbox.reject(row.row_id, "too large")
    assert outbox.take(1) == ()
    assert outbox.depths() == {
        "alarm": 0,
        "state": 0,
        "telemetry": 0,
        "backfill": 0,
        "file": 0,
        "quarantine": 1,
    }
    assert outbox.release() == [1]
    assert outbox.take(1)[0].tries == 0
    assert outbox.keep(999) == 0


def test_a_start_gives_another_chance_only_where_there_is_one(outbox):
    reasons = ("refused by the broker: 0x87", "5100 bytes; broker takes 4000", "damaged: no JSON")
    for number, reason in enumerate(reasons, 1):
        outbox.put(sample(number))
        outbox.reject(number, reason)
    assert outbox.release() == [1]
    assert outbox.release_fitting(100) == []
    assert outbox.release_fitting(4000) == [2]
    assert outbox.depths()["quarantine"] == 1


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Message(Lane.STATE, "State", {}), "kind"),
        (Message(Lane.STATE, "state/x", {"state": "up"}), "state"),
        (Message(Lane.TELEMETRY, "sample", {"x": float("nan")}), "not JSON"),
        (Message(Lane.TELEMETRY, "sample", {"x": object()}), "not JSON"),
        (Message(Lane.TELEMETRY, "sample", {"x": "y" * 70_000}), "allowed: 65536"),
        (Message(Lane.TELEMETRY, "sample/a/b", {}), "kind"),
    ],
)
def test_a_message_that_does_not_fit_is_refused_whole(outbox, message, words):
    with pytest.raises(MalformedMessage, match=words):
        outbox.put(message)
    outbox.put(Message(message.lane, "sample", {"ok": 1}))
    (row,) = outbox.take(10)
    assert json.loads(row.payload)["seq"] == 1


def test_a_deleted_id_never_comes_back_below_a_reader(outbox):
    """Without AUTOINCREMENT a freed row id is given again, and half of live rows get stuck."""
    seen, cursor = [], 0
    for number in range(200):
        outbox.put(sample(number))
        (row,) = [row for row in outbox.take(10) if row.row_id > cursor]
        cursor = row.row_id
        seen += numbers([row])
        outbox.accept([row.row_id])
    assert seen == list(range(200))


def test_held_topics_and_rows_without_room_are_passed_over(outbox):
    outbox.put(alarm())
    outbox.put(Message(Lane.TELEMETRY, "beat2", {"n": 1}))
    outbox.put(sample(2))
    with outbox.reading() as reader:
        rows = reader.take(Ask(10, held_topics={TOPICS.up("beat2")}, takes_receipted=False))
    assert numbers(rows) == [2]


def test_a_lane_full_of_held_rows_hides_nothing_behind_it(store, outbox):
    def fill(connection):
        for number in range(2 * SCAN_ROWS + 100):
            outbox.put_in(connection, Message(Lane.STATE, "held", {"n": number}))
        outbox.put_in(connection, sample(7, Lane.STATE))

    store.write(fill)
    with outbox.reading() as reader:
        ask = Ask(10, held_topics={TOPICS.up("held")})
        looks = [numbers(reader.take(ask)) for _ in range(4)]
    assert [] in looks
    assert [7] in looks


def test_the_reader_notices_every_commit(outbox):
    with outbox.reading() as reader:
        before = reader.version()
        assert reader.version() == before
        outbox.put(sample())
        assert reader.version() != before


def small_store(tmp_path, clock, mib=1):
    store = Store(tmp_path / "small.db", DEVICE_MIGRATIONS, clock, max_bytes=mib << 20)
    store.open()
    return store


def test_evidence_alone_fills_the_box_and_then_says_so(tmp_path, sim):
    store = small_store(tmp_path, sim)
    outbox = Outbox(store, TOPICS, sim, boot=3)
    accepted = []

    def fill():
        while True:
            accepted.append(outbox.put(alarm(reason="x" * 250)))

    with pytest.raises(OutboxFull):
        fill()
    with pytest.raises(OutboxFull, match="nothing left to evict"):
        outbox.put(sample())
    assert outbox.depths()["alarm"] == len(accepted)
    assert outbox.accept_receipt(accepted[: len(accepted) // 2]) == len(accepted) // 2
    outbox.put(alarm())
    outbox.put(sample())
    store.close()


WRITER = """
import sys
from pathlib import Path
from agent.core.clock import RealClock
from agent.core.model import Lane, Message
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.core.wire import Topics
from agent.delivery.outbox import Outbox
import threading
clock = RealClock()
store = Store(Path(sys.argv[1]), DEVICE_MIGRATIONS, clock)
store.open()
outbox = Outbox(store, Topics("plaza", "cam-1"), clock, 1)
lock = threading.Lock()
def work(base):
    for n in range(10_000):
        said = outbox.put(Message(Lane.TELEMETRY, "sample", {"n": base + n}))
        with lock:
            print(said, flush=True)
for base in (0, 100_000, 200_000, 300_000):
    threading.Thread(target=work, args=(base,), daemon=True).start()
threading.Event().wait()
"""


@pytest.mark.crash
def test_what_put_returned_survives_kill_9(tmp_path):
    database = tmp_path / "killed.db"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(database)], stdout=subprocess.PIPE, text=True
    ) as writer:
        accepted = [writer.stdout.readline().strip() for _ in range(3000)]
        os.kill(writer.pid, signal.SIGKILL)
        accepted += [line.strip() for line in writer.stdout if len(line.strip()) == 32]
    assert len(accepted) >= 3000
    store = Store(database, DEVICE_MIGRATIONS, RealClock())
    assert store.open() is None
    with store.reading() as connection:
        envelopes = [
            json.loads(row["payload"])
            for row in connection.execute("SELECT payload FROM outbox ORDER BY id")
        ]
    store.close()
    assert set(accepted) <= {envelope["id"] for envelope in envelopes}
    assert [envelope["seq"] for envelope in envelopes] == list(range(1, len(envelopes) + 1))


def test_many_producers_share_commits_and_keep_the_sequence(store, clock):
    outbox = Outbox(store, TOPICS, clock, boot=1)

    def produce(base):
        for number in range(100):
            outbox.put(sample(base + number))

    threads = [threading.Thread(target=produce, args=(1000 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    envelopes = [json.loads(row.payload) for row in outbox.take(1000)]
    assert [envelope["seq"] for envelope in envelopes] == list(range(1, 801))
    for base in range(8):
        mine = [e["body"]["n"] for e in envelopes if e["body"]["n"] // 1000 == base]
        assert mine == list(range(1000 * base, 1000 * base + 100))


class OutboxModel(RuleBasedStateMachine):
    """Whatever is put is in the outbox until it was accepted the way it has to be."""

    def __init__(self):
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.clock = SimClock()
        self.store = Store(Path(self.folder.name) / "m.db", DEVICE_MIGRATIONS, self.clock)
        self.store.open()
        self.boot = 1
        self.outbox = Outbox(self.store, TOPICS, self.clock, self.boot)
        self.kept = {}  # id -> needs_receipt
        self.aside = set()

    def teardown(self):
        self.store.close()
        self.folder.cleanup()

    @rule(lane=st.sampled_from(list(Lane)), needs_receipt=st.booleans())
    def put(self, lane, needs_receipt):
        message = Message(lane, "sample", {"n": 1}, needs_receipt=needs_receipt)
        self.kept[self.outbox.put(message)] = needs_receipt

    @rule(limit=st.integers(1, 6))
    def send(self, limit):
        rows = self.outbox.take(limit)
        self.outbox.accept([row.row_id for row in rows])
        for row in rows:
            if not row.needs_receipt:
                del self.kept[row.message_id]

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def receipt(self, data):
        message_id = data.draw(st.sampled_from(sorted(self.kept)))
        assert self.outbox.accept_receipt([message_id]) == 1
        del self.kept[message_id]
        self.aside.discard(message_id)

    @rule()
    def set_aside(self):
        for row in self.outbox.take(1):
            self.outbox.reject(row.row_id, "no")
            self.aside.add(row.message_id)

    @rule(seconds=st.sampled_from([1, 61]))
    def time_passes(self, seconds):
        self.clock.advance(seconds)

    @rule()
    def restart(self):
        self.boot += 1
        self.outbox = Outbox(self.store, TOPICS, self.clock, self.boot)
        self.outbox.release()
        self.aside.clear()

    @invariant()
    def all_there(self):
        taken, rows = [], self.outbox.take(1000)
        while rows:
            taken += rows
            rows = self.outbox.take(1000, exclude={row.row_id for row in taken})
        ids = [row.message_id for row in taken]
        assert sorted(ids) == sorted(set(self.kept) - self.aside)
        assert sum(self.outbox.depths().values()) == len(self.kept)


OutboxModel.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestOutboxModel = OutboxModel.TestCase


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    body=st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=10,
        ),
    )
)
def test_any_body_is_stored_as_it_is_or_refused(outbox, body):
    try:
        message_id = outbox.put(Message(Lane.TELEMETRY, "sample", body))
    except MalformedMessage:
        return
    (row,) = [row for row in outbox.take(1000) if row.message_id == message_id]
    assert wire.decode("envelope", row.payload)["body"] == body
    outbox.accept([row.row_id])
