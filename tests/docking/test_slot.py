"""A slot from docking to taking, as an officer and a technician would try it."""

import base64
import json
import os
import shutil
from pathlib import Path

import pytest

from agent.core import wire
from agent.core.errors import HashMismatch
from agent.evidence import verify
from agent.roles import dock as dock_role
from tests.docking.dockside import Camera, Dockside


@pytest.fixture
def side(tmp_path):
    made = Dockside(tmp_path)
    yield made
    made.close()


@pytest.fixture
def camera(tmp_path):
    made = Camera(tmp_path, "BC0001")
    made.film("DCIM/100MEDIA/MOV_0001.mp4", 200_000)
    made.film("DCIM/100MEDIA/MOV_0002.mp4", 5_000_000)
    return made


def test_a_card_is_copied_signed_for_and_wiped(side, camera):
    camera.plug(side.slots["1"])
    side.rest()
    assert side.state() == ("uploading", "")
    assert sorted(side.sealed()) == sorted(data for _, data in camera.ever)
    assert set(camera.files()) == {name for name, _ in camera.ever}, "nothing goes unsigned"
    side.sign()
    side.rest()
    assert side.state() == ("ready", "")
    assert camera.files() == {}
    assert {row["there"] for row in side.footage().values()} == {"wiped"}
    assert len(side.custody("footage.wiped")) == 2
    report = verify.verify(side.state_dir / "footage", side.key)
    assert report.ok, report.text()
    assert report.checked == 2
    camera.pull()
    side.turn()
    assert side.state() == ("empty", "")


def test_a_camera_pulled_in_the_middle_goes_on_in_another_slot(side, camera):
    camera.plug(side.slots["1"])
    side.dock.at[side.dock.looks + 9] = camera.pull
    side.turn(8)
    assert side.state() == ("pulled", "D-18")
    done = len(side.sealed())
    assert done < 2
    camera.plug(side.slots["2"])
    side.rest()
    assert side.state("1") == ("empty", "")
    assert side.state("2") == ("uploading", "")
    side.sign()
    side.rest()
    assert camera.files() == {}
    assert sorted(side.sealed()) == sorted(data for _, data in camera.ever)


def test_at_most_the_last_four_mebibytes_are_read_twice(side, tmp_path):
    camera = Camera(tmp_path, "BC0002")
    camera.film("MOV_0001.mp4", 30_000_000)
    camera.plug(side.slots["1"])
    side.dock.at[side.dock.looks + 25] = camera.pull
    side.turn(8)
    (part,) = (side.state_dir / "parts").glob("*.part")
    here = part.stat().st_size
    assert 4 << 20 < here < 30_000_000
    reads = []
    plain = os.pread

    def counted(descriptor, count, place):
        if camera.slot is not None and str(
            Path(f"/proc/self/fd/{descriptor}").readlink()
        ).startswith(str(camera.root)):
            reads.append((place, count))
        return plain(descriptor, count, place)

    camera.plug(side.slots["2"])
    os.pread = counted
    try:
        side.turn(6)
    finally:
        os.pread = plain
    before = [count for place, count in reads if place < here and count > 64 << 10]
    assert sum(before) <= 4 << 20
    assert side.state("2") == ("uploading", "")
    assert side.sealed() == [camera.ever[0][1]]


def test_a_card_docked_again_is_not_copied_again(side, camera):
    camera.plug(side.slots["1"])
    side.rest()
    camera.pull()
    side.turn()
    assert side.state() == ("empty", ""), "it may be taken before the centre has signed"
    camera.film("DCIM/100MEDIA/MOV_0003.mp4", 1000)
    camera.plug(side.slots["2"])
    side.rest()
    assert len(side.footage()) == 3
    assert len(side.custody("footage.sealed")) == 3
    side.sign()
    side.rest()
    assert camera.files() == {}
    assert len(side.custody("dock.sealed")) == 2


def test_a_name_that_comes_again_is_another_file(side, camera):
    camera.plug(side.slots["1"])
    side.rest()
    side.sign()
    side.rest()
    camera.pull()
    side.turn()
    camera.film("DCIM/100MEDIA/MOV_0001.mp4", 200_000)
    camera.plug(side.slots["1"])
    side.rest()
    side.sign()
    side.rest()
    assert sorted(side.sealed()) == sorted(data for _, data in camera.ever)
    assert len(camera.ever) == 3
    assert camera.files() == {}


def test_the_same_bytes_twice_are_kept_once_and_wiped_twice(side, tmp_path):
    camera = Camera(tmp_path, "BC0003")
    camera.film("A.mp4", 0, b"the same")
    camera.film("B.mp4", 0, b"the same")
    camera.plug(side.slots["1"])
    side.rest()
    assert side.sealed() == [b"the same"]
    side.sign()
    side.rest()
    assert camera.files() == {}
    assert side.state() == ("ready", "")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sha256": "0" * 64}, "sha256"),
        ({"size_bytes": 1}, "size_bytes"),
        ({"device": "dock-2"}, "device"),
        ({"fid": "0" * 32}, "fid"),
        ({"tamper": {"copies": 7}}, "does not fit"),
        ({"tamper": {"sig": "A" * 86 + "=="}}, "does not fit"),
        ({"tamper": {"keyid": "ed25519:" + "0" * 32}}, "not pinned"),
    ],
)
def test_a_receipt_that_is_not_for_it_wipes_nothing(side, camera, changes, why):
    camera.plug(side.slots["1"])
    side.rest()
    side.sign(**changes)
    side.rest()
    assert len(camera.files()) == 2
    assert all(why in row["kept_because"] for row in side.footage().values()), side.footage()
    assert side.state() == ("quarantine", "D-26"), "no honest centre makes such a receipt"


def test_one_copy_at_the_centre_is_not_enough_where_two_are_asked_for(tmp_path, camera):
    side = Dockside(tmp_path / "two", wipe={"min_copies": 2})
    camera.plug(side.slots["1"])
    side.rest()
    side.sign(copies=1)
    side.rest()
    assert len(camera.files()) == 2
    assert "1 copies" in side.footage()["DCIM/100MEDIA/MOV_0001.mp4"]["kept_because"]
    side.close()


def test_what_was_sealed_lately_stays_on_the_camera(tmp_path, camera):
    side = Dockside(tmp_path / "hold", wipe={"min_hold_h": 24.0})
    camera.plug(side.slots["1"])
    side.rest()
    side.sign()
    side.rest()
    assert side.state() == ("ready", "")
    assert len(camera.files()) == 2
    side.clock.advance(25 * 3600)
    side.rest()
    assert camera.files() == {}
    side.close()


def test_a_damaged_copy_of_ours_keeps_the_camera_s_file(side, camera):
    camera.plug(side.slots["1"])
    side.rest()
    side.sign()
    path = next((side.state_dir / "footage").glob("*/recording.mp4"))
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    side.rest()
    assert len(camera.files()) == 1
    assert side.state() == ("quarantine", "D-17")


@pytest.mark.parametrize("place", [0, 2_500_000, 4_999_999])
def test_a_changed_file_on_the_camera_is_not_wiped(side, camera, place):
    camera.plug(side.slots["1"])
    side.rest()
    path = camera.root / "DCIM/100MEDIA/MOV_0002.mp4"
    times = path.stat()
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(bytes([stream.read(1)[0] ^ 1]) if place < 1 else b"\x00\x01")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    side.sign()
    side.rest()
    assert list(camera.files()) == ["DCIM/100MEDIA/MOV_0002.mp4"]
    assert side.state() == ("quarantine", "D-16")


def test_a_card_that_cannot_be_written_is_told(side, camera):
    camera.plug(side.slots["1"])
    side.rest()
    camera.root.chmod(0o555)
    side.sign()
    side.rest()
    assert len(camera.files()) == 2
    assert side.state() == ("quarantine", "D-14")
    camera.root.chmod(0o755)


def test_a_card_that_brings_files_back_is_told(side, camera):
    kept = dict(camera.files())
    camera.plug(side.slots["1"])
    side.rest()
    side.sign()
    for _ in range(30):
        side.turn()
        if side.state()[0] == "checked":
            break
    for name, data in kept.items():
        (camera.root / name).write_bytes(data)
    side.rest()
    assert side.state() == ("quarantine", "D-15")
    assert all(row["there"] == "yes" for row in side.footage().values())
    camera.pull()
    side.turn()
    camera.plug(side.slots["2"])
    side.rest()
    assert len(camera.files()) == 2, "nor later"


def test_what_is_gone_before_it_was_copied_is_told(side, tmp_path):
    camera = Camera(tmp_path, "BC0009")
    path = camera.film("MOV_0001.mp4", 20_000_000)
    camera.plug(side.slots["1"])
    side.dock.at[side.dock.looks + 14] = camera.pull
    side.turn(8)
    path = camera.root / "MOV_0001.mp4"
    path.unlink()
    camera.plug(side.slots["1"])
    side.rest()
    assert len(side.custody("footage.lost")) == 1
    (kept,) = side.sealed()
    assert camera.ever[0][1].startswith(kept), "what had been read is kept"
    assert 0 < len(kept) < 20_000_000
    side.sign()
    side.rest()
    assert side.state() == ("quarantine", "D-20")


def test_the_list_of_a_docking_is_checked_with_all_that_it_names(side, camera):
    camera.plug(side.slots["1"])
    side.rest()
    camera.pull()
    side.turn()
    camera.film("MOV_0003.mp4", 10)
    camera.plug(side.slots["2"])
    side.rest()
    report = verify.verify(side.state_dir / "sessions", side.key)
    assert report.ok, report.text()
    text = report.text()
    assert "camera 'BC0001', officer '', 2 files" in text
    assert "camera 'BC0001', officer '', 3 files" in text
    assert "the first list of this dock" in text
    assert "follows" in text
    first, _ = sorted((side.state_dir / "footage").glob("*/manifest.json"))[:2]
    other = next(p for p in (side.state_dir / "footage").glob("*/manifest.json") if p != first)
    first.write_bytes(other.read_bytes())
    report = verify.verify(side.state_dir / "sessions", side.key)
    assert "another one than the list names" in report.first_wrong


def test_a_list_that_was_changed_is_seen(side, camera):
    camera.plug(side.slots["1"])
    side.rest()
    (path,) = (side.state_dir / "sessions").glob("*/session.json")
    signed = json.loads(path.read_text())
    document = json.loads(base64.b64decode(signed["payload"]))
    document["officer"]["id"] = "somebody else"
    payload = base64.b64encode(wire.canonical(document)).decode()
    path.write_text(json.dumps({**signed, "payload": payload}))
    report = verify.verify(side.state_dir / "sessions", side.key)
    assert not report.ok
    assert any("session.json" in item.what and "signature" in item.wrong for item in report.checks)


def test_a_centre_that_is_away_for_five_days_costs_nothing(side, tmp_path):
    cameras = [Camera(tmp_path, f"BC010{number}") for number in range(2)]
    for day in range(5):
        for camera, slot in zip(cameras, side.slots.values(), strict=True):
            camera.film(f"DCIM/DAY_{day}.mp4", 100_000)
            camera.plug(slot)
        side.rest()
        assert side.state("1") == side.state("2") == ("uploading", "")
        for camera in cameras:
            camera.pull()
        side.turn()
        assert side.state("1") == ("empty", ""), "officers take them as on any day"
        side.clock.advance(86_400)
    for camera, slot in zip(cameras, side.slots.values(), strict=True):
        assert len(camera.files()) == 5, "nothing is wiped unsigned"
        camera.plug(slot)
    side.rest()
    assert len(side.custody("footage.sealed")) == 10, "each was copied once"
    side.sign()
    side.rest()
    assert [camera.files() for camera in cameras] == [{}, {}]


def test_in_a_long_outage_two_disks_may_stand_in_if_a_supervisor_says_so(tmp_path, camera):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    second = other / f"outpost-{tmp_path.name}-{os.getpid()}"
    wipe = {"second_copy_dir": second, "outage_days": 3.0, "fuller_than_percent": 1.0}
    side = Dockside(tmp_path / "two", wipe=wipe)
    try:
        camera.plug(side.slots["1"])
        side.rest()
        side.clock.advance(4 * 86_400)
        side.rest()
        assert len(camera.files()) == 2, "nobody has allowed it"
        ((session,),) = side.rows("SELECT session_id FROM dock_slot WHERE slot = '1'")
        dock_role._second_copy(side.kit).allow(session, "card full, line cut", "Sgt. 0400")
        side.rest()
        assert camera.files() == {}
        found = sorted(path.read_bytes() for path in second.rglob("recording*"))
        assert found == sorted(side.sealed()) == sorted(data for _, data in camera.ever)
        assert len(side.custody("footage.second_copy")) == 2
        assert side.custody("wipe.allowed")[0][1]["by"] == "Sgt. 0400"
    finally:
        side.close()
        shutil.rmtree(second, ignore_errors=True)


def test_a_second_copy_on_the_same_disk_is_none(tmp_path, camera):
    wipe = {"second_copy_dir": tmp_path / "near", "outage_days": 1.0, "fuller_than_percent": 1.0}
    side = Dockside(tmp_path / "one", wipe=wipe)
    camera.plug(side.slots["1"])
    side.rest()
    side.clock.advance(4 * 86_400)
    ((session,),) = side.rows("SELECT session_id FROM dock_slot WHERE slot = '1'")
    dock_role._second_copy(side.kit).allow(session, "line cut", "Sgt. 0400")
    side.rest()
    assert len(camera.files()) == 2
    assert all("on the same disk" in row["kept_because"] for row in side.footage().values())
    side.close()


def test_a_disk_of_ours_that_gives_back_other_bytes_calls_somebody(side, camera, monkeypatch):
    monkeypatch.setattr("agent.docking.copying._Work._read_back", spoilt)
    camera.plug(side.slots["1"])
    side.rest()
    assert side.state() == ("attention", "D-17")
    assert len(camera.files()) == 2
    assert side.sealed() == []
    monkeypatch.undo()
    camera.pull()
    side.turn()
    camera.plug(side.slots["1"])
    side.rest()
    assert len(side.sealed()) == 2


def spoilt(*_):
    raise HashMismatch("part: our own disk gives back other bytes")


def test_a_manifest_damaged_before_the_list_is_signed_calls_somebody(side, camera):
    def sealed():
        return list((side.state_dir / "footage").glob("*/manifest.json"))

    def pull_after_the_first():
        if len(sealed()) == 1:
            camera.pull()

    camera.plug(side.slots["1"])
    side.dock.at.update(dict.fromkeys(range(side.dock.looks, 200), pull_after_the_first))
    side.turn(8)
    side.dock.at.clear()
    (path,) = sealed()
    path.write_bytes(path.read_bytes().replace(b"payloadType", b"payloadTypo"))
    camera.plug(side.slots["2"])
    side.rest()
    assert side.state("2") == ("attention", "D-17")
    assert set(camera.files()) == {name for name, _ in camera.ever}
