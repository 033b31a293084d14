"""The disk or the index says no: nothing is signed for, nothing ends, and all goes on after it."""

import os

import pytest

from agent.evidence.verify import verify
from tests.receiver.rig import Desk, Device, Rig, chunks, done, event


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path)


@pytest.fixture
def desk(tmp_path):
    made = Desk(tmp_path)
    yield made
    made.close()


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    yield made
    made.close()


def fill(store):
    """Let the index refuse to grow."""
    store.write(lambda connection: connection.execute("PRAGMA max_page_count=1").fetchone()[0])


def empty(store):
    store.write(lambda connection: connection.execute("PRAGMA max_page_count=99999").fetchone()[0])


def under_way(desk, device, content, **facts):
    files, signed = device.clip(contents={"clip-1.mp4": content}, **facts)
    offer = device.offer(files, signed)
    desk.files.offer(offer, device.key.public)
    desk.put(device, offer, chunks(content, 65_536))
    return offer, signed


def ended(desk, device, offer):
    """Say done; give what came of the check."""
    assert desk.files.done(device.name, done(offer), device.key.public) is None
    while not (found := desk.files.checked()):
        assert desk.files.is_checking
    return found[0]


def test_a_message_that_the_index_refuses_is_set_aside_and_takes_no_other_down(rig):
    rig.quiet()
    trigger = (
        "CREATE TRIGGER refuse BEFORE INSERT ON event WHEN NEW.rule = 'poison'"
        " BEGIN SELECT RAISE(ABORT, 'not this one'); END"
    )
    rig.store.write(lambda connection: connection.execute(trigger))
    wanted = []
    for number, rule in enumerate(("good", "poison", "good"), 1):
        body = event(number, rule=rule)
        envelope = rig.device.envelope(number, body=body)
        rig.send("event/zone_enter", envelope)
        wanted += [envelope["id"]] * (rule == "good")
    receipts = rig.row_receipts()
    assert {number for receipt in receipts for number in receipt["ids"]} == set(wanted)
    (reason,) = rig.rejected()
    assert "refused by the index: store: not this one" in reason


def test_event_that_cannot_be_stored_gets_no_receipt_until_it_can(rig):
    rig.quiet()
    fill(rig.store)
    big = rig.device.envelope(1, "beat2", {"x": "x" * 200_000}, lane="alarm")
    rig.send("beat2", big)
    assert rig.row_receipts() == []
    empty(rig.store)
    rig.send("beat2", big)
    assert [receipt["ids"] for receipt in rig.row_receipts()] == [[big["id"]]]


def test_rejected_rows_that_cannot_be_stored_stop_nothing(rig):
    rig.quiet()
    fill(rig.store)
    for _ in range(200):
        rig.send("event/" + "x" * 150, b"{" * 300)
    rig.quiet()
    empty(rig.store)
    rig.send("event/zone_enter", rig.device.envelope(1))
    assert len(rig.row_receipts()) == 1


def test_wrong_file_that_cannot_be_set_aside_is_told_and_asked_for_again(desk, device):
    content = os.urandom(5_000)
    offer, _ = under_way(desk, device, content)
    desk.put(device, offer, [(0, b"wrong")])
    (desk.store_dir / "rejected").write_text("in the way")
    answer, wrong = ended(desk, device, offer)
    assert answer is None
    assert offer["fid"] in wrong
    (desk.store_dir / "rejected").unlink()
    answer, wrong = ended(desk, device, offer)
    assert "leaf 0" in answer.document["refused"]
    assert len(list((desk.store_dir / "rejected").iterdir())) == 1


def test_file_that_cannot_be_put_in_its_place_gets_its_receipt_later(desk, device):
    content = os.urandom(5_000)
    offer, signed = under_way(desk, device, content)
    in_the_way = desk.store_dir / "plaza"
    in_the_way.write_text("no folder")
    answer, wrong = ended(desk, device, offer)
    assert answer is None
    assert offer["fid"] in wrong
    in_the_way.unlink()
    answer, wrong = ended(desk, device, offer)
    assert (answer.part, wrong) == ("receipt", "")
    folder = desk.place(device, signed).parent
    assert verify(folder, device.key.public, desk.key.public).ok


def test_chunks_whose_sync_failed_are_asked_for_again(desk, device):
    """After a failed sync nobody knows what is on the disk: only what was noted before counts."""
    content = os.urandom(5_000)
    offer, _ = under_way(desk, device, content)
    (assembly,) = desk.files._open.values()
    reading, writing = os.pipe()
    os.dup2(writing, assembly._descriptor)  # a pipe can not be synced
    desk.clock.advance(2)
    desk.files.flush_due()
    os.close(reading)
    os.close(writing)
    answer = desk.files.offer(offer, device.key.public)
    assert answer.document["ranges"] == [[0, 5_000]]
    assert desk.send(device, offer, content).part == "receipt"


def test_ranges_that_cannot_be_noted_are_asked_for_again(desk, device):
    content = os.urandom(300_000)
    files, signed = device.clip(contents={"clip-1.mp4": content})
    offer = device.offer(files, signed)
    desk.files.offer(offer, device.key.public)
    fill(desk.store)
    holes = [(at, content[at : at + 4]) for at in range(0, 300_000, 8)]
    desk.put(device, offer, holes)  # as many ranges do not fit into the index
    desk.clock.advance(2)
    desk.files.flush_due()
    empty(desk.store)
    assert desk.files.offer(offer, device.key.public).document["ranges"] == [[0, 300_000]]
    assert desk.send(device, offer, content).part == "receipt"
