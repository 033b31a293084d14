"""A receipt is given again only while the file is there; under another key it is signed anew."""

import json

import pytest

from agent.evidence.keys import DeviceKey
from agent.evidence.receipt import check_file_receipt
from agent.evidence.verify import verify
from agent.receiver.files import Files
from tests.receiver.rig import Desk, Device

CONTENT = b"video" * 500


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path)
    yield desk
    desk.close()


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path)


@pytest.fixture
def stored(desk, device):
    """Store a file; gives its offer and its place."""
    files, signed = device.clip(contents={"clip-1.mp4": CONTENT})
    offer = device.offer(files, signed)
    assert desk.send(device, offer, CONTENT).part == "receipt"
    return offer, desk.place(device, signed)


def with_another_key(desk, tmp_path):
    key = DeviceKey.load_or_create(tmp_path / "next.key")
    desk.files = Files(desk.store, desk.config, key, desk.clock)
    return key


def is_for(offer, answer, key):
    assert answer.part == "receipt"
    expected = {name: offer[name] for name in ("fid", "device", "sha256", "size_bytes")}
    check_file_receipt(answer.document, key.public, expected)
    return True


def test_a_new_key_signs_for_what_the_old_one_did_after_looking_at_it(
    desk, device, stored, tmp_path
):
    offer, place = stored
    key = with_another_key(desk, tmp_path)
    answer = desk.files.offer(offer, device.key.public)
    assert is_for(offer, answer, key)
    assert desk.files.offer(offer, device.key.public).document == answer.document
    assert verify(place.parent, device.key.public, desk.key.public, key.public).ok
    place.write_bytes(b"x" * len(CONTENT))
    third = DeviceKey.load_or_create(tmp_path / "third.key")
    desk.files = Files(desk.store, desk.config, third, desk.clock)
    assert desk.files.offer(offer, device.key.public).part == "need", "damaged: asked for again"


@pytest.mark.parametrize("harm", ["gone", "cut"])
def test_no_receipt_is_given_again_for_what_is_no_longer_there(harm, desk, device, stored):
    offer, place = stored
    if harm == "gone":
        place.unlink()
    else:
        place.write_bytes(CONTENT[:-1])
    answer = desk.files.offer(offer, device.key.public)
    assert answer.document["ranges"] == [[0, len(CONTENT)]]
    assert is_for(offer, desk.send(device, offer, CONTENT), desk.key)
    assert place.read_bytes() == CONTENT


def test_a_file_in_a_bucket_is_not_asked_for_again(desk, device, stored, tmp_path):
    offer, place = stored
    place.unlink()

    def move(connection):
        body = json.loads(connection.execute("SELECT body FROM receipt").fetchone()[0])
        body["places"] = ["s3://bucket/key"]
        connection.execute("UPDATE receipt SET body = ?", (json.dumps(body),))

    desk.store.write(move)
    assert desk.files.offer(offer, device.key.public).part == "receipt"
    key = with_another_key(desk, tmp_path)
    answer = desk.files.offer(offer, device.key.public)
    assert is_for(offer, answer, key)
    assert answer.document["places"] == ["s3://bucket/key"]
