"""Transfers: in any order and any number of times, and a receipt for exactly what is stored."""

import json
import resource
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core.clock import SimClock
from agent.core.errors import IntegrityError, MalformedMessage
from agent.evidence import manifest
from agent.evidence.hashing import LEAF_BYTES, FileHash, hash_file
from agent.evidence.receipt import check_file_receipt
from agent.evidence.verify import verify
from agent.receiver.archive import Refused
from agent.receiver.index import contents
from tests.evidence.handover import entry, facts
from tests.receiver.rig import Desk, Device, chunks, done, fid, payload


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


def ranges(answer):
    assert answer.part == "need"
    assert "refused" not in answer.document
    return answer.document["ranges"]


def test_whole_hand_over_verifies_with_the_public_keys_alone(desk, device):
    files, signed = device.clip(
        contents={"clip-1.mp4": b"v" * 70_000, "snapshot.jpg": b"jpeg", "path.json": b""}
    )
    for name in files:
        offer = device.offer(files, signed, name)
        assert is_signed(desk, desk.send(device, offer, files[name]), offer)
    report = verify(desk.place(device, signed).parent, device.key.public, desk.key.public)
    assert report.ok, report.text()
    assert len(contents(desk.store_dir)["files"]) == 3
    assert contents(desk.store_dir)["incoming"] == []
    assert not list((desk.store_dir / "incoming").rglob("*.part"))


CONTENT = bytes(range(256)) * 20


@given(
    cuts=st.lists(
        st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(1, 900)), min_size=0, max_size=25
    ),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_chunks_in_any_order_with_gaps_repeats_and_overlaps(desk, device, cuts):
    """Whatever came is not asked for again; whatever is asked for, and only that, completes it."""
    seed = len(contents(desk.store_dir)["files"])  # Hypothesis may give the same cuts again
    files, signed = device.clip(seed, contents={"clip-1.mp4": CONTENT + b"%d" % seed})
    content = files["clip-1.mp4"]
    offer = device.offer(files, signed)
    assert ranges(desk.files.offer(offer, device.key.public)) == [[0, len(content)]]
    desk.put(device, offer, [(at, content[at : at + size]) for at, size in cuts])
    answer = desk.done(device, offer)
    if answer.part == "need":
        missing = [at for start, end in ranges(answer) for at in range(start, end)]
        came = {at for start, size in cuts for at in range(start, min(start + size, len(content)))}
        assert missing == sorted(set(range(len(content))) - came)
        desk.put(device, offer, [(a, content[a:b]) for a, b in reversed(ranges(answer))])
        answer = desk.done(device, offer)
    assert is_signed(desk, answer, offer)
    assert desk.place(device, signed).read_bytes() == content


def test_empty_file_needs_no_chunk(desk, device):
    files, signed = device.clip(contents={"path.json": b""})
    offer = device.offer(files, signed, "path.json")
    assert ranges(desk.files.offer(offer, device.key.public)) == []
    assert is_signed(desk, desk.done(device, offer), offer)
    assert desk.place(device, signed, "path.json").read_bytes() == b""


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 2801), (2800, 1), (2799, 2), (10**15, 1), (0, 0), (5, 0)]
)
def test_chunk_outside_the_file_is_refused_and_changes_nothing(desk, device, offset, size):
    files, signed = device.clip(contents={"clip-1.mp4": b"v" * 2800})
    offer = device.offer(files, signed)
    desk.files.offer(offer, device.key.public)
    with pytest.raises(MalformedMessage, match="allowed: inside 0 to 2800"):
        desk.put(device, offer, [(offset, b"x" * size)])
    assert ranges(desk.files.offer(offer, device.key.public)) == [[0, 2800]]


def test_chunk_of_no_transfer_is_left_out(desk, device):
    assert not desk.files.chunk(device.name, "0" * 32, 0, b"x", device.key.public)
    assert not list(desk.store_dir.rglob("*.part"))


def test_done_without_an_offer_has_no_answer(desk, device):
    files, signed = device.clip()
    assert desk.done(device, device.offer(files, signed)) is None


def test_repeated_offer_and_done_give_the_identical_receipt(desk, device):
    files, signed = device.clip()
    offer = device.offer(files, signed)
    first = desk.send(device, offer, files["clip-1.mp4"])
    desk.clock.advance(60)
    assert desk.files.offer(offer, device.key.public).document == first.document
    assert desk.done(device, offer).document == first.document
    desk.crash()
    assert desk.files.offer(offer, device.key.public).document == first.document


def test_same_content_under_another_transfer_is_kept_once_and_signed_for_twice(desk, device):
    files, signed = device.clip()
    one, two = device.offer(files, signed), device.offer(files, signed, number=fid("second"))
    first, second = desk.send(device, one, files["clip-1.mp4"]), desk.send(device, two, b"")
    assert is_signed(desk, first, one)
    assert is_signed(desk, second, two)
    assert first.document["fid"] != second.document["fid"]
    assert len(contents(desk.store_dir)["files"]) == 1


def test_same_content_in_another_hand_over_is_linked(desk, device):
    content = {"clip-1.mp4": b"same" * 5000}
    clips = [device.clip(seed, contents=content)[1] for seed in (1, 2)]
    offers = [device.offer(content, signed, number=fid(i)) for i, signed in enumerate(clips)]
    desk.send(device, offers[0], content["clip-1.mp4"])
    assert is_signed(desk, desk.files.offer(offers[1], device.key.public), offers[1])
    one, two = (desk.place(device, signed) for signed in clips)
    assert one.stat().st_ino == two.stat().st_ino
    assert verify(two.parent, device.key.public, desk.key.public).ok


def test_two_transfers_of_the_same_file_at_the_same_time(desk, device):
    files, signed = device.clip()
    offers = [device.offer(files, signed, number=fid(number)) for number in range(2)]
    for offer in offers:
        desk.files.offer(offer, device.key.public)
        desk.put(device, offer, chunks(files["clip-1.mp4"]))
    for offer in offers:
        assert is_signed(desk, desk.done(device, offer), offer)
    assert not list((desk.store_dir / "incoming").rglob("*.part"))
    assert contents(desk.store_dir)["incoming"] == []


def test_wrong_bytes_are_set_aside_refused_by_leaf_and_not_signed_for(desk, device):
    content = bytes(LEAF_BYTES + 100)
    files, signed = device.clip(contents={"clip-1.mp4": content})
    offer = device.offer(files, signed)
    wrong = bytearray(content)
    wrong[LEAF_BYTES + 50] ^= 1
    answer = desk.send(device, offer, bytes(wrong))
    assert answer.part == "need"
    assert "leaf 1" in answer.document["refused"]
    assert not desk.place(device, signed).exists()
    kept = list((desk.store_dir / "rejected").iterdir())
    assert [path.read_bytes() for path in kept] == [bytes(wrong)]
    assert is_signed(desk, desk.send(device, offer, content), offer)


def seal_lie(device, tmp_path, **lie):
    """Give a file and a manifest that is well signed and says something wrong of the file."""
    path = tmp_path / "lie" / "clip-1.mp4"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"video" * 100)
    true = hash_file(path)
    said = {
        "size_bytes": true.size_bytes,
        "sha256": true.sha256,
        "leaves": true.leaves,
        "leaf_root": true.leaf_root,
    } | lie
    false = manifest.FileEntry("clip-1.mp4", "clip", "video/mp4", FileHash(**said))
    return manifest.seal(path.parent, facts(), [false], device.key, SimClock())


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ({"leaves": ("0" * 64,)}, "leaf 0"),
        ({"leaves": ()}, "1 leaves; manifest: 0"),
        ({"leaf_root": "0" * 64}, "leaf_root"),
        ({"sha256": "0" * 64}, "sha256"),
    ],
)
def test_signed_manifest_that_lies_gets_no_receipt(desk, device, tmp_path, lie, words):
    signed = seal_lie(device, tmp_path, **lie)
    offer = device.offer({"clip-1.mp4": b"video" * 100}, signed)
    answer = desk.send(device, offer, b"video" * 100)
    assert words in answer.document["refused"]
    assert contents(desk.store_dir)["files"] == []


def test_offers_that_are_refused(desk, device, tmp_path):
    files, signed = device.clip()
    other = Device(tmp_path, "cam-2")
    payload_changed = signed | {"payload": signed["payload"][:-8] + "AAAAAA=="}
    for offer, words in (
        (device.offer(*device.clip(1, key=other.key)), "signature: made by"),
        (device.offer(files, signed) | {"manifest": payload_changed}, "does not fit"),
        (device.offer(*device.clip(2, device="cam-2")), "manifest of plaza/cam-2; allowed"),
        (device.offer(*device.clip(3, site="square")), "manifest of square/cam-1; allowed"),
        (device.offer(files, signed, name="clip-1.mp4", sha256="0" * 64), "does not stand so"),
        (device.offer(files, signed) | {"name": "clip-2.mp4"}, "does not stand so"),
        (device.offer(files, signed, size_bytes=1), "does not stand so"),
        (device.offer(files, signed, leaf_root="0" * 64), "does not stand so"),
    ):
        with pytest.raises(Refused, match=words):
            desk.files.offer(offer, device.key.public)
    assert contents(desk.store_dir)["incoming"] == []
    assert not list(desk.store_dir.rglob("*.part"))


def test_file_that_is_too_large_or_does_not_fit_on_the_disk_is_refused(tmp_path, device):
    files, signed = device.clip()
    for limits, words in (
        ({"max_file_bytes": 100}, "allowed: 100"),
        ({"keep_free_bytes": 1 << 60}, "full: 0 bytes are free"),
    ):
        desk = Desk(tmp_path, **limits)
        with pytest.raises(IntegrityError, match=words) as caught:
            desk.files.offer(device.offer(files, signed), device.key.public)
        answer = desk.files.refusal(device.name, "f" * 32, caught.value).document
        assert answer.get("never", False) is (words == "allowed: 100")
        assert answer.get("full", False) is (words != "allowed: 100")
        desk.close()


def test_transfer_id_stands_for_one_file(desk, device):
    files, signed = device.clip(1)
    others, second = device.clip(2)
    number = fid("shared")
    offer = device.offer(files, signed, number=number)
    desk.files.offer(offer, device.key.public)
    with pytest.raises(Refused, match="stands for another file"):
        desk.files.offer(device.offer(others, second, number=number), device.key.public)
    with pytest.raises(Refused, match="stands for another file"):
        desk.done(device, offer, sha256="0" * 64)
    assert is_signed(desk, desk.send(device, offer, files["clip-1.mp4"]), offer)
    with pytest.raises(Refused, match="signed for with another file"):
        desk.files.offer(device.offer(others, second, number=number), device.key.public)


def test_devices_do_not_meet_in_a_transfer_id(desk, device, tmp_path):
    other = Device(tmp_path, "cam-2")
    number = fid("shared")
    pairs = [(box, *box.clip(box.name)) for box in (device, other)]
    offers = [box.offer(files, signed, number=number) for box, files, signed in pairs]
    for (box, files, _), offer in zip(pairs, offers, strict=True):
        desk.files.offer(offer, box.key.public)
        desk.put(box, offer, chunks(files["clip-1.mp4"]))
    for (box, _, _), offer in zip(pairs, offers, strict=True):
        assert is_signed(desk, desk.done(box, offer), offer)


def test_part_of_a_killed_receiver_is_resumed_without_a_new_offer(desk, device):
    content = bytes(3000)
    files, signed = device.clip(contents={"clip-1.mp4": content})
    offer = device.offer(files, signed)
    desk.files.offer(offer, device.key.public)
    desk.put(device, offer, chunks(content)[:1])
    desk.clock.advance(2)
    desk.files.flush_due()
    desk.put(device, offer, chunks(content)[1:2])  # written, never synced
    desk.crash()
    assert ranges(desk.done(device, offer)) == [[1000, 3000]]
    desk.put(device, offer, chunks(content)[1:])
    assert is_signed(desk, desk.done(device, offer), offer)


def test_part_file_that_is_gone_or_short_is_asked_for_whole(desk, device):
    content = bytes(3000)
    files, signed = device.clip(contents={"clip-1.mp4": content})
    offer = device.offer(files, signed)
    for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(b"x")):
        desk.files.offer(offer, device.key.public)
        desk.put(device, offer, chunks(content)[:2])
        desk.clock.advance(2)
        desk.files.flush_due()
        desk.crash()
        damage(desk.store_dir / "incoming" / device.name / f"{offer['fid']}.part")
        assert ranges(desk.files.offer(offer, device.key.public)) == [[0, 3000]]
        desk.crash()


def test_killed_between_rename_and_row(desk, device):
    """The file is in its place, the row still says incoming: a done or an offer completes it."""
    for seed, ask in ((1, "done"), (2, "offer")):
        files, signed = device.clip(seed)
        offer = device.offer(files, signed)
        desk.files.offer(offer, device.key.public)
        desk.put(device, offer, chunks(files["clip-1.mp4"]))
        desk.clock.advance(2)
        desk.files.flush_due()
        desk.crash()
        place = desk.place(device, signed)
        place.parent.mkdir(parents=True)
        (place.parent / "manifest.json").write_text(json.dumps(signed))
        (desk.store_dir / "incoming" / device.name / f"{offer['fid']}.part").rename(place)
        if ask == "offer":  # nothing has to be sent a second time
            answer = desk.files.offer(offer, device.key.public)
        else:
            answer = desk.done(device, offer)
        assert is_signed(desk, answer, offer)
        assert verify(place.parent, device.key.public, desk.key.public).ok
    assert contents(desk.store_dir)["incoming"] == []


def test_parts_without_a_row_are_removed_at_start(desk, device):
    stray = desk.store_dir / "incoming" / device.name / f"{'9' * 32}.part"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"x")
    desk.crash()
    assert not stray.exists()


def test_damaged_stored_file_is_found_set_aside_and_asked_for_again(desk, device):
    files, signed = device.clip()
    desk.send(device, device.offer(files, signed), files["clip-1.mp4"])
    place = desk.place(device, signed)
    place.write_bytes(b"rot")
    again = device.offer(files, signed, number=fid("again"))
    assert ranges(desk.files.offer(again, device.key.public)) == [[0, again["size_bytes"]]]
    assert [path.read_bytes() for path in (desk.store_dir / "rejected").iterdir()] == [b"rot"]
    assert is_signed(desk, desk.send(device, again, files["clip-1.mp4"]), again)
    assert place.read_bytes() == files["clip-1.mp4"]


def test_damaged_manifest_is_written_again(desk, device):
    files, signed = device.clip(contents={"clip-1.mp4": b"one", "clip-2.mp4": b"two"})
    desk.send(device, device.offer(files, signed), files["clip-1.mp4"])
    path = desk.place(device, signed).parent / "manifest.json"
    path.write_bytes(b"\xff{")
    desk.send(device, device.offer(files, signed, "clip-2.mp4"), files["clip-2.mp4"])
    assert verify(path.parent, device.key.public, desk.key.public).ok


def test_receipt_is_never_given_for_a_file_without_its_manifest(desk, device):
    files, signed = device.clip()
    desk.send(device, device.offer(files, signed), files["clip-1.mp4"])
    folder = desk.place(device, signed).parent
    (folder / "manifest.json").unlink()
    again = device.offer(files, signed, number=fid("again"))
    assert is_signed(desk, desk.files.offer(again, device.key.public), again)
    assert verify(folder, device.key.public, desk.key.public).ok


def test_more_open_files_than_allowed_are_shelved_and_go_on(tmp_path, device):
    desk = Desk(tmp_path, max_open_per_device=2)
    clips = [device.clip(seed) for seed in range(5)]
    offers = [device.offer(*clip) for clip in clips]
    for offer in offers:
        desk.files.offer(offer, device.key.public)
    for half in (0, 1):
        for offer, (files, _) in zip(offers, clips, strict=True):
            desk.put(device, offer, chunks(files["clip-1.mp4"])[half::2])
    for offer in offers:
        assert is_signed(desk, desk.done(device, offer), offer)
    desk.close()


def test_transfers_under_way_are_bounded_in_number_and_bytes(tmp_path, device):
    for number, limits in enumerate(
        ({"max_incoming_per_device": 3}, {"max_incoming_bytes_per_device": 9000})
    ):
        (tmp_path / f"{number}").mkdir()
        desk = Desk(tmp_path / f"{number}", **limits)
        files = {"clip-1.mp4": bytes(3000)}
        for seed in range(8):
            offer = device.offer(*device.clip((seed, *limits), contents=files), number=fid(seed))
            desk.files.offer(offer, device.key.public)
            desk.clock.advance(1)
        waiting = [row["fid"] for row in contents(desk.store_dir)["incoming"]]
        assert waiting == [fid(5), fid(6), fid(7)]
        assert len(list(desk.store_dir.rglob("*.part"))) == 3
        desk.close()


def test_files_set_aside_are_bounded_in_bytes(tmp_path, device):
    desk = Desk(tmp_path, max_rejected_bytes=7000)
    for seed in range(5):
        files, signed = device.clip(seed, contents={"clip-1.mp4": b"%d" % seed * 3000})
        desk.send(device, device.offer(files, signed), b"wrong" * 600)
        desk.clock.advance(1)
    assert len(list((desk.store_dir / "rejected").iterdir())) == 2
    desk.close()


def test_device_with_a_new_key_starts_its_transfer_anew(desk, device, tmp_path):
    files, signed = device.clip()
    offer = device.offer(files, signed)
    desk.files.offer(offer, device.key.public)
    desk.put(device, offer, chunks(files["clip-1.mp4"])[:1])
    desk.crash()
    renewed = Device(tmp_path / "renewed")
    assert not desk.files.chunk(device.name, offer["fid"], 0, b"x", renewed.key.public)
    with pytest.raises(Refused, match="signature: made by"):
        desk.files.offer(offer, renewed.key.public)
    mine = renewed.offer(*renewed.clip(contents=files), number=offer["fid"])
    assert is_signed(desk, desk.send(renewed, mine, files["clip-1.mp4"]), mine)


@pytest.fixture
def small_files():
    """Let no file of this process grow beyond 2000 bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(is_on):
        size = 2000 if is_on else before[0]
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    limit(False)


def test_chunk_that_the_disk_refuses_is_asked_for_again(desk, device, small_files):
    content = bytes(range(250)) * 12
    files, signed = device.clip(contents={"clip-1.mp4": content})
    offer = device.offer(files, signed)
    desk.files.offer(offer, device.key.public)
    small_files(True)
    with pytest.raises(OSError, match="File too large"):
        desk.put(device, offer, chunks(content, 1500))
    small_files(False)
    assert ranges(desk.done(device, offer)) == [[1500, 3000]]
    desk.put(device, offer, chunks(content, 1500)[1:])
    assert is_signed(desk, desk.done(device, offer), offer)


def test_while_a_file_is_checked_nothing_is_written_and_done_waits(desk, device):
    content = bytes(3 * LEAF_BYTES)
    files, signed = device.clip(contents={"clip-1.mp4": content})
    offer = device.offer(files, signed)
    desk.files.offer(offer, device.key.public)
    desk.put(device, offer, chunks(content, 1 << 20))
    key = device.key.public
    assert desk.files.done(device.name, done(offer), key) is None
    assert desk.files.is_checking
    assert not desk.files.chunk(device.name, offer["fid"], 0, b"late", key)
    assert ranges(desk.files.offer(offer, key)) == []
    desk.files.close()  # stops the check; nothing is lost
    assert threading.active_count() < 10
    assert is_signed(desk, desk.done(device, offer), offer)


def test_contents_of_a_store_are_plain_dictionaries(desk, device):
    files, signed = device.clip()
    offer = device.offer(files, signed)
    desk.send(device, offer, files["clip-1.mp4"])
    found = json.loads(json.dumps(contents(desk.store_dir)))
    assert found["files"][0]["path"] == str(desk.place(device, signed).relative_to(desk.store_dir))
    assert found["files"][0]["clip_id"] == payload(signed)["clip_id"]
    assert entry(desk.store_dir / found["files"][0]["path"]).hash.sha256 == offer["sha256"]
