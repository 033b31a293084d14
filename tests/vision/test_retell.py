"""Events told once more: the oldest first, with their clips, and past what the disk has damaged."""

from agent.core import wire
from agent.vision.retell import retell
from tests.scenarios.field import Field, event_line


def test_events_are_told_with_their_clips_and_a_damaged_one_stops_nothing(store, tmp_path):
    field = Field(tmp_path, store, 1)
    fid = field.seal(clip_mp4=b"video")[0]
    told = []

    def add(connection):
        for name, body in (("a" * 32, "damaged"), ("b" * 32, event_line("b" * 32))):
            connection.execute(
                "INSERT INTO event VALUES (?, 'west', 'k', 'r', 'closed', 5, 6, ?)", (name, body)
            )
        return retell(connection, lambda _, message: told.append(message))

    assert store.write(add) == 2
    sealed, plain = (wire.check("event", message.body) for message in told)
    assert sealed["clip"]["clip_id"] == field.ledger.find(fid).clip_id
    assert [item["name"] for item in sealed["clip"]["files"]] == ["clip.mp4"]
    assert (plain["event_id"], plain["state"], "clip" in plain) == ("b" * 32, "closed", False)
    assert all(message.needs_receipt for message in told)
