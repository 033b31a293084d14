"""Holds by the centre's signed command: placed, let go, refused in words, on record."""

import json

import pytest

from agent.core import wire
from agent.core.clock import NS_PER_S, SimClock
from agent.core.wire import Topics
from agent.delivery.outbox import Outbox
from agent.device.commands import Commands
from agent.evidence import custody, receipt
from agent.evidence.keys import DeviceKey
from agent.evidence.receipt import sign_command
from agent.roles.keepsakes import centre_words
from agent.vision.hold import Keepsakes, listed
from tests.vision.recording import rows

NOW_MS = 1_700_000_000_000
ARGS = {
    "camera": "gate",
    "from_utc_ms": NOW_MS - 60_000,
    "to_utc_ms": NOW_MS - 30_000,
    "reason": "case 7",
    "by": "A. Weber",
}


class Desk:
    """A box that hears the centre."""

    def __init__(self, store, folder) -> None:
        self.store = store
        self.centre = DeviceKey.load_or_create(folder / "centre.key")
        clock = SimClock(NOW_MS * NS_PER_S // 1000)
        self.topics = Topics("yard", "cam-1")

        def note(connection, kind, subject, detail) -> object:
            return custody.append(connection, clock, kind, subject, detail)

        keepsakes = Keepsakes(store, clock, note, ("gate",))
        self.commands = Commands(
            store,
            Outbox(store, self.topics, clock, 7),
            lambda document: receipt.check_command(document, self.centre.public),
            centre_words(keepsakes),
            clock,
        )
        self._number = 0

    def order(self, word: str, args: dict) -> tuple[str, dict]:
        """Give the command's id and the body of its answer."""
        self._number += 1
        fields = {
            "id": f"{self._number:032x}",
            "device": "cam-1",
            "word": word,
            "args": args,
            "issued_utc_ms": NOW_MS,
            "receiver": "centre-1",
        }
        command = sign_command(fields, self.centre)
        self.commands._take(self.topics.command(command["id"]), wire.encode(command))
        (row,) = rows(self.store, "SELECT payload FROM outbox ORDER BY id DESC LIMIT 1")
        return command["id"], json.loads(row["payload"])["body"]

    def holds(self) -> list[dict]:
        with self.store.reading() as connection:
            return listed(connection)["holds"]


@pytest.fixture
def desk(store, tmp_path) -> Desk:
    return Desk(store, tmp_path)


def test_the_centre_places_a_hold_under_its_commands_id_and_lets_it_go(desk) -> None:
    command_id, answer = desk.order("hold", ARGS)
    assert (answer["state"], answer["detail"]) == ("done", f"hold {command_id}")
    (found,) = desk.holds()
    assert (found["id"], found["placed_by"]) == (command_id, "A. Weber")
    assert found["start_utc_ns"] == ARGS["from_utc_ms"] * 1_000_000
    let_go = {"hold": command_id, "reason": "closed", "by": "B. Kern"}
    released, answer = desk.order("release", let_go)
    assert answer["state"] == "done"
    assert desk.holds() == []
    entries = rows(desk.store, "SELECT kind, detail FROM custody ORDER BY seq")
    details = {row["kind"]: json.loads(row["detail"]) for row in entries}
    assert details["hold.placed"]["via"] == f"command {command_id}"
    assert details["hold.released"] == {
        "reason": "closed",
        "by": "B. Kern",
        "via": f"command {released}",
    }


@pytest.mark.parametrize(
    ("word", "args", "says"),
    [
        ("hold", {**ARGS, "camera": "attic"}, "camera 'attic': unknown; allowed: gate"),
        ("hold", {**ARGS, "to_utc_ms": 5}, "ends before it begins"),
        ("hold", {**ARGS, "from_utc_ms": NOW_MS + 3_600_000, "to_utc_ms": 1 << 50}, "allowed"),
        ("hold", {**ARGS, "from_utc_ms": NOW_MS + 90_000, "to_utc_ms": 1 << 41}, "not yet begun"),
        ("hold", {**ARGS, "reason": " "}, "reason is missing"),
        ("hold", {**ARGS, "by": ""}, "by"),
        ("hold", {**ARGS, "more": 1}, "must not contain"),
        ("hold", {}, "must contain"),
        ("hold", {**ARGS, "from_utc_ms": -1}, "from_utc_ms"),
        ("release", {"hold": "f" * 32, "reason": "r", "by": "b"}, "there are: none"),
        ("release", {"hold": "nonsense", "reason": "r", "by": "b"}, "hold"),
        ("release", {"hold": "f" * 32, "by": "b"}, "must contain"),
    ],
)
def test_a_wrong_command_is_refused_and_holds_nothing(desk, word, args, says) -> None:
    _, answer = desk.order(word, args)
    assert answer["state"] == "refused"
    assert says in answer["detail"]
    assert desk.holds() == []
