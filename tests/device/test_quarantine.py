"""Rows that were set aside: tried again or dropped, by somebody, for a reason, never in silence."""

import hashlib
import json

import pytest

from agent.core.errors import MalformedMessage
from agent.core.model import Lane, Message
from agent.core.wire import Topics
from agent.delivery.outbox import Outbox
from agent.device.quarantine import DROP, MOST_IDS, RETRY, Quarantine
from agent.device.requests import Request, do
from agent.evidence import custody
from tests.delivery.test_outbox import EVENT

TOPICS = Topics("plaza", "cam-1")


class Bench:
    """An outbox with rows that were set aside."""

    def __init__(self, store, clock):
        self.store, self.clock = store, clock
        self.outbox = Outbox(store, TOPICS, clock, boot=7)
        self.again = []
        self.quarantine = Quarantine(store, self.outbox, self.note, self.again.extend)

    def note(self, connection, kind, subject, detail):
        assert connection.in_transaction
        return custody.append(connection, self.clock, kind, subject, detail)

    def aside(self, message, reason="refused by the broker: 0x87 Not authorized"):
        message_id = self.outbox.put(message)
        (row,) = [row for row in self.outbox.take(1000) if row.message_id == message_id]
        self.outbox.reject(row.row_id, reason)
        return row

    def ask(self, word, **args):
        return do(self.quarantine.words, Request(word, args, "eva", 1000))

    def log(self):
        with self.store.reading() as connection:
            rows = connection.execute("SELECT * FROM custody ORDER BY seq").fetchall()
        custody.check_chain([dict(row) for row in rows])
        return [(row["kind"], row["subject"], json.loads(row["detail"])) for row in rows]


@pytest.fixture
def bench(store, clock):
    return Bench(store, clock)


def sample(number=0):
    return Message(Lane.TELEMETRY, "sample", {"n": number})


def event():
    return Message(Lane.ALARM, "event/zone_enter", EVENT, needs_receipt=True)


def test_a_row_is_tried_again_and_custody_knows_by_whom(bench):
    row = bench.aside(sample())
    other = bench.aside(sample(1))
    assert bench.ask(RETRY, ids=[row.row_id], reason="topic opened") == {
        "ids": [row.row_id],
        "left": 1,
    }
    assert [found.row_id for found in bench.outbox.take(10)] == [row.row_id]
    assert bench.again == [row.row_id]
    ((kind, subject, detail),) = bench.log()
    assert (kind, subject) == ("outbox.retried", row.message_id)
    assert detail == {
        "by": "eva",
        "via": "user 1000",
        "reason": "topic opened",
        "row": row.row_id,
        "lane": "telemetry",
        "boot": 7,
        "seq": 1,
        "topic": row.topic,
        "size_bytes": len(row.payload),
        "sha256": hashlib.sha256(row.payload).hexdigest(),
        "is_evidence": False,
        "set_aside": "refused by the broker: 0x87 Not authorized",
    }
    assert bench.ask(RETRY, all=True) == {"ids": [other.row_id], "left": 0}
    assert bench.ask(RETRY, all=True) == {"ids": [], "left": 0}


def test_a_dropped_row_is_gone_and_the_centre_is_told(bench):
    rows = [bench.aside(sample(number)) for number in range(3)]
    kept = bench.outbox.put(sample(3))
    done = bench.ask(DROP, ids=[row.row_id for row in rows[:2]], reason="broken by a test")
    assert done == {"ids": [row.row_id for row in rows[:2]]}
    assert [kind for kind, _, _ in bench.log()] == ["outbox.dropped"] * 2
    record, waiting = bench.outbox.take(10)
    body = json.loads(record.payload)["body"]
    assert body["state"] == "dropped"
    assert body["removed"] == [{"boot": 7, "lane": "telemetry", "from": 1, "to": 2}]
    assert waiting.message_id == kept
    assert bench.outbox.depths()["quarantine"] == 1


def test_evidence_is_dropped_only_when_that_is_said(bench):
    row, other = bench.aside(event()), bench.aside(sample())
    ids = [row.row_id, other.row_id]
    with pytest.raises(MalformedMessage, match=f"rows {row.row_id}: evidence .* allowed: --evid"):
        bench.ask(DROP, ids=ids, reason="r")
    assert bench.outbox.depths()["quarantine"] == 2, "all or none"
    assert bench.log() == []
    bench.ask(DROP, ids=ids, reason="r", evidence=True)
    assert [detail["is_evidence"] for _, _, detail in bench.log()] == [True, False]


@pytest.mark.parametrize("word", [RETRY, DROP])
def test_ids_that_are_not_set_aside_are_named(bench, word):
    row = bench.aside(sample())
    waiting = bench.outbox.put(sample(1))
    (found,) = bench.outbox.take(1)
    assert found.message_id == waiting
    words = rf"rows {found.row_id}, 999: not set aside; there are: {row.row_id}"
    with pytest.raises(MalformedMessage, match=words):
        bench.ask(word, ids=[row.row_id, 999, found.row_id], reason="r")
    assert bench.outbox.depths()["quarantine"] == 1


def test_where_nothing_is_set_aside_that_is_said(bench):
    with pytest.raises(MalformedMessage, match="rows 1: not set aside; there are: none"):
        bench.ask(RETRY, ids=[1])


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"ids": []},
        {"ids": [0]},
        {"ids": ["1"]},
        {"ids": [True]},
        {"ids": [1 << 63]},
        {"ids": list(range(1, MOST_IDS + 2))},
        {"ids": [1], "reason": "a\nb"},
        {"ids": [1], "reason": "a" * 257},
        {"ids": [1], "reason": 5},
        {"ids": [1], "all": True},
    ],
)
@pytest.mark.parametrize("word", [RETRY, DROP])
def test_args_that_are_not_in_order_are_refused(bench, word, args):
    with pytest.raises(MalformedMessage, match=r"allowed|not set aside"):
        bench.ask(word, **{"reason": "r", **args})


def test_dropping_asks_for_a_reason_and_for_ids(bench):
    row = bench.aside(sample())
    with pytest.raises(MalformedMessage, match="reason is missing"):
        bench.ask(DROP, ids=[row.row_id], reason=" ")
    with pytest.raises(MalformedMessage, match="ids, each looked at"):
        bench.ask(DROP, all=True, reason="r")


def test_a_message_for_others_than_the_centre_has_no_number(bench):
    bench.store.write(lambda connection: bench.outbox.announce_in(connection, "ha/x", b"{}"))
    (row,) = bench.outbox.take(1)
    bench.outbox.reject(row.row_id, "refused")
    bench.ask(DROP, ids=[row.row_id], reason="no longer used")
    ((_, _, detail),) = bench.log()
    assert detail["seq"] == 0
    assert bench.outbox.take(10) == (), "nothing to tell the centre"
