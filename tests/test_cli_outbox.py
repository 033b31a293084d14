"""`outpost outbox` and `inspect quarantine` as people type them, with and without an agent."""

import json
from pathlib import Path

import pytest

from agent import app, cli
from agent.core.clock import RealClock
from agent.core.model import Lane, Message
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.core.wire import Topics
from agent.delivery.outbox import Outbox
from agent.device import status
from agent.device.quarantine import Quarantine
from agent.device.requests import Requests
from agent.evidence import custody
from tests.delivery.centre import Running
from tests.delivery.test_outbox import EVENT

CONFIG = """
device = "cam-1"
site = "plaza"
role = "camera"
state_dir = "state"
[delivery]
receiver_key_path = "keys/receiver.pub"
[[cameras]]
id = "gate"
main = { driver = "file", path = "gate.mp4" }
"""
REASON = "refused by the broker: 0x87 Not authorized"


class Site:
    """A box with two rows set aside: a sample, and an event that needs a receipt."""

    def __init__(self, folder: Path, capsys):
        self.config, self.state, self.capsys = folder / "outpost.toml", folder / "state", capsys
        self.config.write_text(CONFIG)
        self.clock = RealClock()
        self.store = Store(self.state / app.DATABASE, DEVICE_MIGRATIONS, self.clock)
        self.store.open()
        self.store.write(lambda c: c.execute("INSERT INTO meta (key, value) VALUES ('boot', 4)"))
        self.outbox = Outbox(self.store, Topics("plaza", "cam-1"), self.clock, boot=4)
        self.outbox.put(Message(Lane.TELEMETRY, "sample", {"n": 1}))
        event = Message(Lane.ALARM, "event/zone_enter", EVENT, needs_receipt=True)
        self.outbox.put(event)
        for row in self.outbox.take(10):
            self.outbox.reject(row.row_id, REASON)

    def say(self, *words):
        code = cli.main([*map(str, words), "--config", str(self.config)])
        return (code, *self.capsys.readouterr())

    def rows(self, topic="quarantine"):
        code, out, _ = self.say("inspect", topic, "--json")
        assert code == 0
        lines = out.splitlines() if topic == "custody" else [out]
        found = [json.loads(line) for line in lines]
        return found if topic == "custody" else found[0]


@pytest.fixture
def site(tmp_path, capsys):
    made = Site(tmp_path, capsys)
    yield made
    made.store.close()


@pytest.fixture(params=["running", "stopped"])
def either(request, site):
    """The box with its agent, as far as it serves requests, and without."""
    if request.param == "stopped":
        site.store.close()
        yield site
        return

    def note(connection, kind, subject, detail):
        return custody.append(connection, site.clock, kind, subject, detail)

    aside = Quarantine(site.store, site.outbox, note, lambda _: None)
    agent = Requests(site.state, aside.words, site.clock)
    with status.alone(site.state), Running(agent):
        yield site


def test_what_was_set_aside_is_shown_with_all_that_matters(site):
    event, sample = site.rows()
    assert (sample["id"], sample["kind"], sample["lane"]) == (1, "sample", "telemetry")
    assert (event["kind"], event["needs_receipt"], event["tries"]) == ("event/zone_enter", 1, 0)
    assert 0 <= event["age_s"] < 600
    assert event["bytes"] > sample["bytes"] > 100
    assert {event["reason"], sample["reason"]} == {REASON}
    code, out, _ = site.say("inspect", "quarantine")
    assert code == 0
    assert "event/zone_enter" in out
    assert REASON in out


def test_retry_and_drop_with_and_without_an_agent(either):
    code, out, _ = either.say("outbox", "drop", 1, "--reason", "wrong topic", "--by", "eva")
    assert (code, out) == (0, "row 1 dropped\n")
    code, out, _ = either.say("outbox", "retry", "--all")
    assert (code, out) == (0, "row 2 will be sent again\n")
    assert either.rows() == []
    waiting = [(row["lane"], row["quarantine"]) for row in either.rows("outbox")]
    assert waiting == [("state", None), ("alarm", None)]
    log = [entry for entry in either.rows("custody") if "kind" in entry]
    assert [entry["kind"] for entry in log] == ["outbox.dropped", "outbox.retried"]
    assert (log[0]["detail"]["by"], log[0]["detail"]["reason"]) == ("eva", "wrong topic")
    assert log[1]["detail"]["by"], "the user's own name"


def test_mistakes_are_told_and_change_nothing(either):
    code, _, err = either.say("outbox", "drop", 2, "--reason", "r")
    assert (code, "--evidence" in err) == (1, True)
    code, _, err = either.say("outbox", "retry", 7, 9)
    assert code == 1
    assert "outpost: rows 7, 9: not set aside; there are: 1, 2\n" in err
    for words in (("retry",), ("retry", 1, "--all")):
        code, _, err = either.say("outbox", *words)
        assert code == 78
        assert "outpost: outbox retry: allowed: either ids or --all\n" in err
    with pytest.raises(SystemExit):
        either.say("outbox", "drop", 1)
    assert len(either.rows()) == 2


def test_evidence_goes_when_it_is_said(either):
    code, out, _ = either.say("outbox", "drop", 1, 2, "--reason", "r", "--evidence")
    assert (code, out) == (0, "rows 1, 2 dropped\n")


def test_the_record_of_a_drop_counts_on_in_the_last_start_of_the_agent(either):
    either.say("outbox", "drop", 1, "--reason", "r")
    store = Store(either.state / app.DATABASE, DEVICE_MIGRATIONS, either.clock)
    with store.reading() as connection:
        (payload,) = connection.execute(
            "SELECT payload FROM outbox WHERE lane = 'state'"
        ).fetchone()
    envelope = json.loads(payload)
    assert (envelope["boot"], envelope["lane"], envelope["seq"]) == (4, "state", 1)


def test_a_box_that_never_ran_says_so(tmp_path, capsys):
    (tmp_path / "outpost.toml").write_text(CONFIG)
    words = ["outbox", "retry", "--all", "--config", str(tmp_path / "outpost.toml")]
    assert cli.main(words) == 1
    assert "no agent has run here yet" in capsys.readouterr().err
