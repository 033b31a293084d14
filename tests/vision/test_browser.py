"""What is recorded plays in a browser and can be sought in: files, remains, clips."""

import shutil
from fractions import Fraction
from pathlib import Path

import pytest

from agent.core.clock import NS_PER_S, SimClock
from agent.core.store import Store
from agent.vision import cut
from agent.vision.disks import Disks
from agent.vision.recovery import recover
from tests import browser, footage
from tests.vision.recording import Desk, looped, segments
from tests.vision.test_recovery import killed, note

pytestmark = [pytest.mark.video, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _needs_a_browser() -> None:
    if browser.program() is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")


def number_of(picture: list) -> int:
    """Read the number that a picture's brightness tells; the browser gives full range RGB."""
    digits = [
        round(((green * 219 / 255 + 16) - footage._BASE) / footage._STEP) for green in picture[1]
    ]
    return digits[0] + digits[1] * footage._DIGITS


def test_files_remains_and_clips_play_and_seek(store: Store, tmp_path: Path) -> None:
    sim = SimClock(1_700_000_004 * NS_PER_S)  # where a file of 6 s begins
    desk = Desk(store, tmp_path, looped(footage.numbered(60), sim), sim, segment_s=6)
    desk.record(60)
    begun = segments(store)[0]
    served = tmp_path / "served"
    served.mkdir()
    shutil.copy(tmp_path / begun["path"], served / "closed.mp4")

    open_file = killed(store, tmp_path, footage.numbered(60), 45)
    shutil.copy(open_file, served / "fragments.mp4")
    damaged = killed(store, tmp_path, footage.numbered(60), 45, "7-2-a")
    content = damaged.read_bytes()
    last = content.rfind(b"moof") - 4
    damaged.write_bytes(content[: last + 40] + bytes(len(content) - last - 40))
    short = killed(store, tmp_path, footage.numbered(60), 45, "7-3-a")
    short.write_bytes(short.read_bytes()[:-300])
    assert recover(store, Disks(tmp_path, store, sim), note).segments == 3
    shutil.copy(damaged, served / "rescued.mp4")
    shutil.copy(short, served / "cut.mp4")

    recording = cut.packets_of(cut_recording(tmp_path, begun))
    start_ns = begun["start_utc_ns"]
    part = cut.Part("h264", cut.between(recording, start_ns + NS_PER_S, start_ns + 4 * NS_PER_S))
    assert cut.write(part, served / "clip.mp4", served / "work.mp4", {}) is not None

    wanted = {
        "closed.mp4": [0.05, 2.05, 4.55, 1.05],
        "fragments.mp4": [0.05, 3.05, 1.55],
        "rescued.mp4": [0.05, 2.45, 0.95],
        "cut.mp4": [0.05, 0.95, 2.45],  # its broken end last: a player may stop there
        "clip.mp4": [0.05, 2.45, 1.25],
    }
    found = browser.play(served, wanted, tmp_path / "profile")
    assert set(found) == set(wanted)
    first = {"clip.mp4": 10}
    for name, told in found.items():
        assert told["error"] is None or name == "cut.mp4", told  # it ends within a picture
        assert told["size"] == [320, 180]
        assert [float(at) for at in told["pictures"]] == wanted[name]
        for at, picture in told["pictures"].items():
            expected = first.get(name, 0) + int(float(at) * footage.FPS)
            assert number_of(picture) == expected, (name, at, picture)
        if name != "cut.mp4":
            assert told["played_s"] >= max(wanted[name])
    assert found["closed.mp4"]["duration_s"] == pytest.approx(6, abs=0.15)
    assert found["clip.mp4"]["duration_s"] == pytest.approx(3, abs=0.15)


def cut_recording(folder: Path, row) -> cut.Recording:
    return cut.Recording(
        path=folder / row["path"],
        run=row["run"],
        codec=row["codec"],
        shape=row["extradata"],
        start_utc_ns=row["start_utc_ns"],
        end_utc_ns=row["end_utc_ns"],
        first_dts=row["first_dts"],
        last_dts=row["last_dts"],
        time_base=Fraction(row["time_base_num"], row["time_base_den"]),
        sha256=row["sha256"],
    )
