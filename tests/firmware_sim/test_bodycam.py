"""The simulated body camera: its card plays, its faults are what they say, it has two forms."""

import json
import os
import signal
import subprocess
import sys
import time

import av
import pytest

from firmware_sim import bodycam_card
from firmware_sim.bodycam import BodyCam
from firmware_sim.dock import FolderSlot

pytestmark = pytest.mark.video


def until(what, limit_s=10.0):
    end_s = time.monotonic() + limit_s
    while time.monotonic() < end_s:
        if what():
            return True
        time.sleep(0.02)
    return False


def recordings(root):
    return sorted((root / bodycam_card.FOLDER).glob("*.mp4"))


def test_recordings_play_and_the_same_seed_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        bodycam_card.fill(tmp_path / name, {"seed": 7, "files": 2, "clip_s": 1.0, "serial": "A"})
    first, second = (recordings(tmp_path / name) for name in ("one", "two"))
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert first[0].read_bytes() != first[1].read_bytes()
    with av.open(str(first[0])) as found:
        assert [stream.type for stream in found.streams] == ["video", "audio"]
        assert sum(1 for _ in found.decode(video=0)) == bodycam_card.FPS
    data = first[0].read_bytes()
    assert data.index(b"mdat") < data.index(b"moov"), "the index at the end, as cameras write it"


@pytest.mark.parametrize("fault", sorted(set(bodycam_card.FAULTS) - {"many_files"}))
def test_a_fault_changes_the_card(tmp_path, fault):
    plain, faulty = tmp_path / "plain", tmp_path / "faulty"
    bodycam_card.fill(plain, {"clip_s": 1.0})
    bodycam_card.fill(faulty, {"clip_s": 1.0, "card": [fault]})

    def listing(root):
        paths = sorted(os.path.relpath(p, root) for p in root.rglob("*"))
        return [(p, (root / p).lstat().st_size, _tail(root / p)) for p in paths]

    assert listing(plain) != listing(faulty)


def _tail(path):
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 1 << 30:
        return b""
    return path.read_bytes()[-16:]


def test_a_recording_that_was_cut_has_no_index(tmp_path):
    bodycam_card.fill(tmp_path, {"clip_s": 1.0, "card": ["no_moov"]})
    with pytest.raises(av.error.InvalidDataError):
        av.open(str(recordings(tmp_path)[-1]))


def test_unknown_faults_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"card fault 'rust'; allowed: dir_loop"):
        bodycam_card.fill(tmp_path, {"card": ["rust"], "files": 0})
    with pytest.raises(ValueError, match="allowed: battery_dies"):
        BodyCam(tmp_path, {"faults": ["rust"], "files": 0})


def test_it_is_spoken_to_then_storage_then_spoken_to_again(tmp_path):
    slot = FolderSlot(tmp_path / "dock", "1")
    with BodyCam(tmp_path, {"files": 1, "clip_s": 1.0, "phase_s": 0.2}) as camera:
        camera.plug(slot)
        assert (slot.path / "tty").resolve() == camera.port
        camera.become_storage()
        assert until((slot.path / "volume.json").exists)
        assert not (slot.path / "tty").exists()
        assert json.loads((slot.path / "volume.json").read_text())["serial"] == "BC0001"
        assert len(recordings(slot.path / "storage")) == 1
        (slot.path / "eject").touch()
        assert until((slot.path / "tty").exists)
        assert not (slot.path / "storage").exists()
        camera.pull()
        assert list(slot.path.iterdir()) == []
    assert len(recordings(camera.card)) == 1, "its card goes with it"


def test_what_was_deleted_comes_back_on_a_card_that_lies(tmp_path):
    slot = FolderSlot(tmp_path / "dock", "1")
    scenario = {"files": 1, "clip_s": 1.0, "phase_s": 0.1, "faults": ["wipe_lies"]}
    with BodyCam(tmp_path, scenario) as camera:
        camera.plug(slot)
        camera.become_storage()
        assert until((slot.path / "volume.json").exists)
        recordings(slot.path / "storage")[0].unlink()
        (slot.path / "eject").touch()
        assert until((slot.path / "tty").exists)
        assert len(recordings(camera.card)) == 1


def test_a_battery_fills_in_a_dock_unless_it_dies(tmp_path):
    slot = FolderSlot(tmp_path / "dock", "1")
    with BodyCam(tmp_path, {"files": 0, "percent": 10}) as camera:
        camera.plug(slot)
        assert until(lambda: camera.percent > 10)
    with BodyCam(tmp_path, {"files": 0, "percent": 10, "faults": ["battery_dies"]}) as camera:
        camera.plug(slot)
        time.sleep(0.8)
        assert camera.percent == 10


def test_a_clock_may_be_in_1970(tmp_path):
    with BodyCam(tmp_path, {"files": 0, "clock_offset_s": "epoch"}) as camera:
        assert camera.utc_ns() < 60 * 10**9


def test_a_clock_may_jump_an_hour_with_summer_time(tmp_path):
    slot = FolderSlot(tmp_path / "dock", "1")
    scenario = {"files": 0, "phase_s": 0.1, "faults": ["dst_jump"]}
    (tmp_path / "card").mkdir()
    with BodyCam(tmp_path, scenario, tmp_path / "card") as camera:
        camera.plug(slot)
        assert abs(camera.utc_ns() - time.time_ns()) < 60 * 10**9
        camera.become_storage()
        assert until((slot.path / "volume.json").exists)
        assert abs(camera.utc_ns() - time.time_ns() - 3600 * 10**9) < 60 * 10**9


def test_it_runs_as_a_program(tmp_path):
    scenario = tmp_path / "scenario.json"
    scenario.write_text(json.dumps({"files": 1, "clip_s": 1.0}))
    words = ["--pty", tmp_path / "camera", "--storage", tmp_path / "card", "--scenario", scenario]
    process = subprocess.Popen(
        [sys.executable, "-m", "firmware_sim.bodycam", *words], stdout=subprocess.PIPE, text=True
    )
    try:
        told = json.loads(process.stdout.readline())
        assert told["storage"] == str(tmp_path / "card")
        assert (tmp_path / "camera").resolve().is_char_device()
        assert len(recordings(tmp_path / "card")) == 1
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        process.stdout.close()
    assert not (tmp_path / "camera").is_symlink()
