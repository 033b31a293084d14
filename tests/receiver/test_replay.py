"""When a device is asked for what is missing: once at first, ever more rarely, by any clock."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.core.clock import SimClock
from agent.core.errors import IntegrityError
from agent.core.store import Store
from agent.evidence import gaprecord
from agent.evidence.keys import DeviceKey
from agent.evidence.receipt import check_command
from agent.receiver import gaps, replay
from agent.receiver.replay import Replays
from agent.receiver.schema import RECEIVER_MIGRATIONS
from tests.receiver.rig import config

KEY = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))
BOX = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
GRACE_MS = 60_000


class Desk:
    """A centre's gaps and its clock."""

    def __init__(self, folder):
        self.clock = SimClock()
        self.store = Store(folder / "r.db", RECEIVER_MIGRATIONS, self.clock)
        self.store.open()
        self.replays = Replays(self.store, config(folder), KEY, self.clock)

    def come(self, *numbers, device="cam-1"):
        def change(connection):
            for number in numbers:
                envelope = {"device": device, "boot": 1, "lane": "telemetry", "seq": number}
                gaps.note(connection, envelope, self.clock.utc_ns() // 10**6, GRACE_MS)

        self.store.write(change)

    def asked(self, seconds, step_s=5):
        """Let time pass; gives (device, from, to) of every command."""
        found = []
        for _ in range(seconds // step_s):
            self.clock.advance(step_s)
            for command in self.replays.due():
                args = check_command(command, KEY.public)["args"]
                found.append((command["device"], args["from"], args["to"]))
        return found


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path)
    yield desk
    desk.store.close()


def test_a_gap_is_asked_for_after_the_grace_time_and_then_ever_more_rarely(desk):
    desk.come(1, 5)
    assert desk.asked(55) == []
    assert desk.asked(10) == [("cam-1", 2, 4)]
    assert desk.asked(290) == []
    assert desk.asked(20) == [("cam-1", 2, 4)]
    assert len(desk.asked(86_400, 60)) == 7
    assert len(desk.asked(3 * 86_400, 60)) == 3, "once a day at last"


def test_what_came_meanwhile_is_not_asked_for(desk):
    desk.come(1, 5)
    desk.come(2, 3, 4)
    assert desk.asked(200) == []
    desk.come(9, 6, 8)
    assert desk.asked(70) == [("cam-1", 7, 7)]


def test_many_gaps_are_asked_for_a_few_at_a_time_and_a_large_one_in_parts(desk):
    desk.come(*range(2, 60, 2))
    assert len(desk.asked(60)) == replay.MOST_ASKED
    assert len(desk.asked(60)) == 29 - replay.MOST_ASKED
    desk.come(30_000, device="cam-2")
    assert desk.asked(60) == [("cam-2", 1, 10_000)]


@pytest.mark.parametrize("seconds", [-1_600_000_000, -86_400 * 30, 86_400 * 400])
def test_a_clock_of_the_centre_that_is_set_holds_up_no_question_for_long(desk, seconds):
    desk.come(1, 5)
    desk.clock.step_wall(seconds)
    assert desk.asked(65) == [("cam-1", 2, 4)]


def test_an_answer_is_kept_with_the_gap_and_ends_the_questions(desk):
    desk.come(1, 5)
    record = {"device": "cam-1", "command": "a" * 32, "boot": 1, "lane": "telemetry"}
    record |= {"from": 2, "to": 4, "utc_ms": 1, "waiting": 1}
    record["missing"] = [{"from": 2, "to": 3, "reason": "taken"}]
    body = {"command": "a" * 32, "word": "replay", "state": "done", "detail": ""}
    envelope = {"device": "cam-1", "body": body | {"record": gaprecord.sign(record, BOX)}}
    replay.check_answer(envelope, BOX.public)
    with pytest.raises(IntegrityError):
        replay.check_answer(envelope, KEY.public)
    with pytest.raises(IntegrityError, match="gap record of 'cam-1'"):
        replay.check_answer({**envelope, "device": "cam-2"}, BOX.public)
    desk.store.write(lambda connection: replay.take_answer(connection, envelope))
    assert desk.asked(70) == [("cam-1", 4, 4)]
    desk.come(4)
    assert desk.asked(86_400, 60) == []
