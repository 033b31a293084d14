"""One clip id, two hand-overs: both are kept, neither is changed."""

import pytest

from agent.evidence.receipt import check_file_receipt
from agent.evidence.verify import verify
from agent.receiver.index import contents
from tests.receiver.rig import Desk, Device, chunks


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path)
    yield desk
    desk.close()


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path)


def is_signed(desk, answer, offer):
    assert answer.part == "receipt"
    expected = {name: offer[name] for name in ("fid", "device", "sha256", "size_bytes")}
    check_file_receipt(answer.document, desk.key.public, expected)
    return True


def test_a_clip_that_is_made_again_under_its_id_is_kept_beside_the_first(desk, device):
    """A device whose database went back in time: nothing stored changes, and nothing is lost."""
    files, signed = device.clip(1)
    desk.send(device, device.offer(files, signed), files["clip-1.mp4"])
    first = desk.place(device, signed).parent
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    again, other = device.clip(1, contents={"clip-1.mp4": b"made again", "clip-2.mp4": b"more"})
    for name, content in again.items():
        offer = device.offer(again, other, name)
        for _ in range(2):
            assert is_signed(desk, desk.send(device, offer, content), offer)
    assert {path.name: path.read_bytes() for path in first.iterdir()} == before
    (second,) = [path for path in first.parent.iterdir() if path != first]
    assert second.name.startswith(first.name + ".")
    assert (second / "clip-1.mp4").read_bytes() == b"made again"
    for folder in (first, second):
        assert verify(folder, device.key.public, desk.key.public).ok
    rows = contents(desk.store_dir)["files"]
    assert sorted(row["clip_id"] for row in rows) == [first.name, second.name, second.name]


def test_two_versions_of_a_clip_on_their_way_at_once_do_not_mix(desk, device):
    (files, signed), (again, other) = device.clip(1), device.clip(1, contents={"clip-1.mp4": b"2"})
    offers = [device.offer(files, signed), device.offer(again, other)]
    for offer, content in zip(offers, (files, again), strict=True):
        desk.files.offer(offer, device.key.public)
        desk.put(device, offer, chunks(content["clip-1.mp4"]))
    for offer in offers:
        assert is_signed(desk, desk.done(device, offer), offer)
    folders = list(desk.place(device, signed).parent.parent.iterdir())
    assert len(folders) == 2
    assert all(verify(folder, device.key.public, desk.key.public).ok for folder in folders)
