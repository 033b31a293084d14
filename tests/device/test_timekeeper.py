"""Which stamps are put right: first sync, steps of the clock, restarts before it; any history."""

import itertools
import json
import sqlite3
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core import wire
from agent.core.clock import NS_PER_MS, NS_PER_S, SimClock
from agent.core.errors import StorageError
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.core.wire import Topics
from agent.delivery.outbox import Outbox
from agent.device.timekeeper import STARTS_KEY, Sources, Timekeeper
from agent.receiver import times
from agent.receiver.schema import RECEIVER_MIGRATIONS

TOPICS = Topics("plaza", "cam-1")
BASE_NS = 1_700_000_000 * NS_PER_S
SYNCED = {"source": "ntp", "error_ms": 3}
UNSYNCED = {"source": "none", "error_ms": -1}


class Satellites:
    """A receiver that knows true time, and says so once a second when it sees the sky."""

    def __init__(self, utc_ns, mono_ns):
        self.utc_ns, self.mono_ns = utc_ns, mono_ns
        self.position = None


class Desk:
    """A box whose clock is in the test's hand; true time is BASE_NS plus monotonic time."""

    def __init__(self, store, boot=1, clock=None, kernel="k1"):
        self.clock = clock or SimClock(utc_ns=BASE_NS)
        self.store, self.boot = store, boot
        self.kernel, self.chrony, self.sky = UNSYNCED, None, False
        self.sources = Sources(lambda: self.kernel, lambda: self.chrony, self.fix, lambda: kernel)
        self.keeper = Timekeeper(store, self.put_in, self.clock, boot, self.sources, 10.0)
        self.outbox = Outbox(store, TOPICS, self.clock, boot, self.keeper.state)
        self.sent, self.messages = [], []
        self.position = None

    def put_in(self, connection, message):
        self.outbox.put_in(connection, message)
        if message.kind == "time":
            assert message.needs_receipt
            self.sent.append(message.body)
        else:
            self.position = message

    def fix(self):
        if not self.sky:
            return None
        fix = Satellites(self.true_ns(), self.clock.mono_ns())
        fix.position = {
            "lat_deg": 1.5,
            "lon_deg": 2.5,
            "altitude_m": None,
            "quality": 1,
            "satellites": 7,
            "hdop": None,
            "fix_utc_ms": 5,
        }
        return fix

    def true_ns(self):
        return BASE_NS + self.clock.mono_ns()

    def step(self, seconds):
        """Set the clock by hand: the kernel forgets that it was right."""
        self.clock.step_wall(seconds)
        self.kernel = UNSYNCED

    def sync(self):
        self.clock.step_wall((self.true_ns() - self.clock.utc_ns()) / NS_PER_S)
        self.kernel = SYNCED

    def wait(self, seconds):
        for _ in range(seconds):
            self.clock.advance(1)
            self.keeper.look()

    def make(self):
        """Make a message, as the outbox does."""
        utc_ns, mono_ns = self.clock.utc_ns(), self.clock.mono_ns()
        clock = self.keeper.state()
        self.messages.append(
            {
                "id": f"{len(self.messages):032x}",
                "device": "cam-1",
                "boot": self.boot,
                "t_utc_ms": max(0, utc_ns // NS_PER_MS),
                "mono_ms": mono_ns // NS_PER_MS,
                "clock": clock,
                "true_ms": self.true_ns() // NS_PER_MS,
                "kind": "beat",
            }
        )


@pytest.fixture
def desk(store):
    return Desk(store)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("box") / "box.db", DEVICE_MIGRATIONS, SimClock())
    store.open()
    yield store
    store.close()


def kept(desk, late=()):
    """Give (best time, error) of each message as a centre would have it; `late` come last."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        for step in RECEIVER_MIGRATIONS:
            connection.executescript(step)
        early = [item for at, item in enumerate(desk.messages) if at not in late]
        insert(connection, early)
        for body in desk.sent:
            wire.check("time", body)
            times.adjust(connection, {"device": "cam-1", "body": body})
        for at in late:
            if at < len(desk.messages):
                insert(connection, [desk.messages[at]])
                times.take(connection, desk.messages[at])
        rows = connection.execute("SELECT * FROM message ORDER BY id").fetchall()
    assert [row["t_utc_ms"] for row in rows] == [item["t_utc_ms"] for item in desk.messages]
    return [(row["adjusted_utc_ms"], row["adjusted_error_ms"]) for row in rows]


def insert(connection, messages):
    connection.executemany(
        "INSERT INTO message (device, id, boot, lane, seq, kind, t_utc_ms, received_utc_ms,"
        " mono_ms, payload) VALUES (:device, :id, :boot, 'telemetry', 1, 'beat', :t_utc_ms, 1,"
        " :mono_ms, '{}')",
        [
            {name: item[name] for name in ("device", "id", "boot", "t_utc_ms", "mono_ms")}
            for item in messages
        ],
    )


def test_a_clock_that_is_right_from_the_start_is_left_alone(desk):
    desk.kernel = SYNCED
    desk.make()
    desk.wait(30)
    desk.make()
    assert desk.sent == []
    assert desk.messages[0]["clock"] == SYNCED


def test_what_was_made_before_the_first_sync_is_restamped(desk):
    desk.step(-1_700_000_000)  # 1970: no battery behind the clock
    desk.make()
    desk.wait(5)
    desk.make()
    desk.sync()
    desk.wait(1)
    desk.make()
    desk.wait(5)
    (body,) = desk.sent
    assert (body["why"], body["from_mono_ms"], body["boot"]) == ("first sync", 0, 1)
    assert [item["clock"]["source"] for item in desk.messages] == ["none", "none", "ntp"]
    assert desk.messages[0]["t_utc_ms"] == 0
    (first, error_ms), (second, _), (third, _) = kept(desk)
    assert first == desk.messages[0]["true_ms"]
    assert second == desk.messages[1]["true_ms"]
    assert third is None, "it needs none"
    assert error_ms == 4
    assert kept(desk, late=[0, 1]) == kept(desk)


def test_a_start_that_never_knew_the_time_is_put_right_by_the_next(store):
    first = Desk(store, boot=1)
    first.step(-40_000_000)
    first.make()
    first.wait(3)
    other = Desk(store, boot=2, clock=SimClock(utc_ns=BASE_NS), kernel="k0")
    other.wait(3)  # another start of the kernel: its monotonic clock says nothing here
    again = Desk(store, boot=3, clock=first.clock)
    again.sync()
    again.make()
    again.wait(3)
    assert [body["boot"] for body in again.sent] == [1]
    first.sent = again.sent
    assert kept(first)[0][0] == first.messages[0]["true_ms"]
    with store.reading() as connection:
        query = "SELECT value FROM meta WHERE key = ?"
        assert json.loads(connection.execute(query, (STARTS_KEY,)).fetchone()["value"]) == []


@pytest.mark.parametrize("seconds", [3600, -3600, -1_700_000_000, 315_360_000])
def test_a_step_is_put_right_once_the_clock_is(desk, seconds):
    desk.kernel = SYNCED
    desk.wait(3)
    desk.step(seconds)
    desk.make()
    desk.wait(4)
    desk.make()
    desk.sync()
    desk.make()
    desk.wait(3)
    assert [body["why"] for body in desk.sent] == ["stepped"]
    assert [best for best, _ in kept(desk)][:2] == [item["true_ms"] for item in desk.messages][:2]


def test_satellites_say_how_wrong_the_clock_is(desk):
    desk.clock.step_wall(0.2)
    desk.sky = True
    desk.wait(2)
    desk.make()
    assert desk.messages[0]["clock"] == {"source": "gps", "error_ms": 700}
    desk.clock.step_wall(100)
    desk.make()
    assert desk.messages[1]["clock"] == UNSYNCED
    desk.wait(700)
    assert "clock is off" in {body["why"] for body in desk.sent}
    assert kept(desk)[1][0] == desk.messages[1]["true_ms"]
    desk.sky = False
    desk.wait(1)
    assert desk.keeper.state() == UNSYNCED


def test_the_position_is_told_now_and_then_while_there_is_one(desk):
    desk.wait(12)
    assert desk.position is None
    desk.sky = True
    desk.wait(1)
    assert desk.position.body["lat_deg"] == 1.5
    desk.position = None
    desk.wait(9)
    assert desk.position is None
    desk.wait(1)
    assert desk.position is not None


def test_chrony_narrows_what_the_kernel_says_while_the_kernel_is_right(desk):
    desk.kernel, desk.chrony = {"source": "ntp", "error_ms": 500}, {"source": "gps", "error_ms": 1}
    desk.wait(1)
    assert desk.keeper.state() == {"source": "gps", "error_ms": 1}
    desk.chrony = None
    desk.wait(20)
    assert desk.keeper.state()["error_ms"] == 500
    desk.kernel = UNSYNCED
    assert desk.keeper.state() == UNSYNCED


def test_an_adjustment_that_found_no_room_is_sent_later(desk):
    refused = []
    put_in = desk.put_in

    def refuse(connection, message):
        refused.append(message)
        raise StorageError("disk full")

    desk.keeper._put_in = refuse
    desk.wait(2)
    desk.sync()
    desk.wait(3)
    assert refused
    assert desk.sent == []
    desk.keeper._put_in = put_in
    desk.wait(1)
    assert [body["why"] for body in desk.sent] == ["first sync"]


SEEDS = itertools.count(1)  # one store: ids must differ
ACTIONS = st.one_of(
    st.tuples(st.just("step"), st.sampled_from([-1_700_000_000, -3600, -2, 2, 3600, 10**8])),
    st.tuples(st.just("wait"), st.sampled_from([1, 2, 5])),
    st.tuples(st.just("pass"), st.sampled_from([0.01, 0.3])),  # no look at the clock
    st.tuples(st.just("sync"), st.none()),
    st.tuples(st.just("make"), st.none()),
)


@given(st.lists(ACTIONS, max_size=40), st.lists(st.integers(0, 12), max_size=6, unique=True))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_after_any_history_every_message_has_its_true_time(shared, actions, late):
    desk = Desk(shared, clock=SimClock(BASE_NS, seed=next(SEEDS)))
    for action, value in actions:
        if action == "step":
            desk.step(value)
        elif action == "wait":
            desk.wait(value)
        elif action == "pass":
            desk.clock.advance(value)
        elif action == "sync":
            desk.sync()
        else:
            desk.make()
    desk.sync()
    desk.wait(2)
    for message, (best_ms, error_ms) in zip(desk.messages, kept(desk, late), strict=True):
        if best_ms is None:
            assert message["clock"] == SYNCED
            assert abs(message["t_utc_ms"] - message["true_ms"]) <= 3
        else:
            assert abs(best_ms - message["true_ms"]) <= error_ms
