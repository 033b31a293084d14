"""Commands and the word `replay`: signed, done once, and every number accounted for."""

import threading

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.core import wire
from agent.core.model import Lane, Message
from agent.core.wire import Topics
from agent.delivery import removals
from agent.delivery.outbox import Outbox
from agent.device import commands
from agent.device.commands import Commands
from agent.device.replay import Replay
from agent.evidence import gaprecord
from agent.evidence.keys import DeviceKey
from agent.evidence.receipt import check_command, sign_command
from agent.receiver import gaps
from tests.delivery.test_outbox import EVENT

TOPICS = Topics("plaza", "cam-1")
BOX = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
CENTRE = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))
STATE = {"state": "good", "since_utc_ms": 1, "detail": ""}


class Desk:
    """A box that hears commands."""

    def __init__(self, store, clock):
        self.store, self.clock = store, clock
        self.outbox = Outbox(store, TOPICS, clock, boot=7)
        self.resent = []
        self.commands = Commands(
            store,
            self.outbox,
            lambda document: check_command(document, CENTRE.public),
            {"replay": Replay(store, "cam-1", BOX, clock, self.resent.extend)},
            clock,
        )

    def say(self, number=1, key=CENTRE, topic=None, **changes):
        fields = {
            "id": f"{number:032x}",
            "device": "cam-1",
            "word": "replay",
            "args": {"boot": 7, "lane": "telemetry", "from": 1, "to": 10},
            "issued_utc_ms": 5,
            "receiver": "centre-1",
        } | changes
        document = sign_command(fields, key)
        self.hear(topic or TOPICS.command(fields["id"]), wire.encode(document))

    def hear(self, topic, payload):
        self.commands.hear(topic, payload)
        stop = threading.Event()

        def progress():
            stop.set()

        self.commands.run(stop, progress)

    def statuses(self):
        rows = [row for row in self.outbox.take(100) if row.topic.endswith("/status")]
        assert all(row.needs_receipt for row in rows)
        return [wire.decode("envelope", row.payload)["body"] for row in rows]

    def beats(self, count, lane=Lane.TELEMETRY):
        return [self.outbox.put(Message(lane, "state/x", STATE)) for _ in range(count)]

    def ids(self, lane=Lane.TELEMETRY):
        return {row.message_id: row.row_id for row in self.outbox.take(1000)}


@pytest.fixture
def desk(store, clock):
    return Desk(store, clock)


def record(status):
    return gaprecord.opened(status["record"], BOX.public, "cam-1")


def test_every_number_is_accounted_for_and_what_is_here_is_sent_again(desk):
    names = desk.beats(6)
    rows = desk.ids()
    desk.outbox.accept([rows[names[0]], rows[names[1]]])
    desk.outbox.reject(rows[names[3]], "too large")

    def evict(connection):
        query = "SELECT boot, lane, payload FROM outbox WHERE id = ?"
        found = connection.execute(query, (rows[names[4]],)).fetchall()
        assert removals.note(connection, found) == [(7, "telemetry", 5, 5, None)]
        connection.execute("DELETE FROM outbox WHERE id = ?", (rows[names[4]],))

    desk.store.write(evict)
    desk.say()
    (status,) = desk.statuses()
    assert (status["state"], status["command"]) == ("done", f"{1:032x}")
    told = record(status)
    assert told["missing"] == [
        {"from": 1, "to": 2, "reason": "taken"},
        {"from": 4, "to": 4, "reason": "quarantined"},
        {"from": 5, "to": 5, "reason": "evicted"},
        {"from": 7, "to": 10, "reason": "never"},
    ]
    assert told["waiting"] == 2
    assert desk.resent == [names[2], names[5]]


def test_a_row_without_number_for_others_does_not_disturb(desk):
    desk.store.write(
        lambda connection: desk.outbox.announce_in(connection, "homeassistant/x", b"{}")
    )
    desk.beats(2, Lane.STATE)
    desk.say(args={"boot": 7, "lane": "state", "from": 1, "to": 2})
    assert record(desk.statuses()[0])["waiting"] == 2


def test_an_earlier_start_and_a_start_to_come(desk):
    desk.beats(1)
    desk.say(1, args={"boot": 3, "lane": "telemetry", "from": 5, "to": 6})
    desk.say(2, args={"boot": 9, "lane": "telemetry", "from": 5, "to": 6})
    reasons = [record(status)["missing"][0]["reason"] for status in desk.statuses()]
    assert reasons == ["taken", "never"]


def test_a_command_that_comes_again_does_nothing_twice(desk, store, clock):
    desk.beats(1)
    for _ in range(3):
        desk.say()
    again = Desk(store, clock)  # after a restart
    again.say()
    assert len(desk.statuses()) == 1
    assert len(desk.resent) == 1
    assert again.resent == []


def test_what_is_forgotten_is_not_done_again_either(desk, monkeypatch, caplog):
    monkeypatch.setattr(commands, "MOST_KNOWN", 3)
    now_ms = desk.clock.utc_ns() // 1_000_000
    for number in range(1, 7):
        desk.say(number, issued_utc_ms=now_ms + number)
    assert len(desk.statuses()) == 6
    for number in range(1, 7):
        desk.say(number, issued_utc_ms=now_ms + number)
    desk.say(8, issued_utc_ms=now_ms + 1)
    assert len(desk.statuses()) == 6
    assert desk.commands.ignored == 4
    assert "issued before others that are forgotten here" in caplog.text
    desk.say(9, issued_utc_ms=now_ms + 4)
    assert len(desk.statuses()) == 7


def test_a_centre_whose_clock_was_wrong_once_is_heard_later(desk, monkeypatch):
    monkeypatch.setattr(commands, "MOST_KNOWN", 1)
    now_ms = desk.clock.utc_ns() // 1_000_000
    desk.say(1, issued_utc_ms=now_ms + 10 * 86_400_000)
    for number in range(2, 5):
        desk.say(number, issued_utc_ms=now_ms + number)
    assert len(desk.statuses()) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "cam-2"}, "'cam-2'; this is another"),
        ({"word": "format_disk"}, "allowed: replay"),
        ({"args": {}}, "replay: data must contain"),
        ({"args": {"boot": 7, "lane": "alarm", "from": 5, "to": 4}}, "allowed: upwards"),
        ({"args": {"boot": 7, "lane": "alarm", "from": -1, "to": 4}}, "from"),
        ({"args": {"boot": 7, "lane": "alarm", "from": 1, "to": 1 << 60}}, "to"),
    ],
)
def test_what_is_signed_and_cannot_be_done_is_refused_with_the_reason(desk, changes, words):
    desk.say(**changes)
    (status,) = desk.statuses()
    assert status["state"] == "refused"
    assert words in status["detail"]
    assert "record" not in status


def test_what_the_centre_did_not_sign_is_ignored_and_told(desk, caplog):
    desk.say(key=BOX)
    desk.say(2, topic=TOPICS.command("f" * 32))
    for payload in (b"", b"{}", b"\xff", b"[" * 5000):
        desk.hear(TOPICS.command("f" * 32), payload)
    assert desk.statuses() == []
    assert desk.commands.ignored == 6
    assert "command ignored" in caplog.text


def test_a_flood_is_bounded(desk):
    for _ in range(70):
        desk.commands.hear(TOPICS.command("f" * 32), b"{}")
    assert desk.commands.ignored == 6


def test_a_scattered_range_is_answered_whole_and_a_huge_one_in_part(desk):
    names = desk.beats(409)
    rows = desk.ids()
    desk.outbox.accept([rows[name] for name in names[::2]])
    desk.say(args={"boot": 7, "lane": "telemetry", "from": 1, "to": 1 << 50})
    told = record(desk.statuses()[0])
    taken, never = told["missing"]
    gone = [first for first, _ in gaps.runs_of(taken)]
    assert gone == list(range(1, 410, 2))
    assert (never["from"], never["to"], told["to"]) == (410, 10_000, 10_000)
    assert told["waiting"] == 204 == len(desk.resent)
    desk.say(2, args={"boot": 7, "lane": "backfill", "from": 1, "to": 1 << 50})
    told = record(desk.statuses()[1])
    assert told["missing"] == [{"from": 1, "to": 10_000, "reason": "never"}]


def test_events_that_wait_for_their_receipt_are_sent_again(desk):
    name = desk.outbox.put(Message(Lane.ALARM, "event/zone_enter", EVENT, needs_receipt=True))
    desk.say(args={"boot": 7, "lane": "alarm", "from": 1, "to": 1})
    assert desk.resent == [name]


def test_evictions_say_in_numbers_what_went(desk):
    spans = [removals.Span(1, "telemetry", 2 * n, 2 * n) for n in range(1, 200)]
    body = {**STATE, "removed": removals.told(spans)}
    desk.outbox.put(Message(Lane.STATE, "state/outbox", body))
