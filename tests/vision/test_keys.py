"""A camera that stops sending key frames: told once, opened again, and memory stays bounded."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.clock import NS_PER_S, SimClock
from agent.core.errors import SourceLost
from agent.core.store import Store
from tests import footage
from tests.vision.recording import Desk, gaps, segments
from tests.vision.test_recorder import Script

pytestmark = pytest.mark.video


@pytest.fixture
def sim() -> SimClock:
    return SimClock()


def every(packets: list, count: int, gop: int, start_ns: int, mono_ns: int) -> list:
    """Give so many pictures, 10 a second, with a key frame every `gop` of them."""
    step = packets[1].dts - packets[0].dts
    return [
        replace(
            packets[0 if number % gop == 0 else 1],
            dts=number * step,
            pts=number * step,
            utc_ns=start_ns + number * NS_PER_S // 10,
            arrival_mono_ns=mono_ns + number * NS_PER_S // 10,
        )
        for number in range(count)
    ]


def test_stream_without_key_frames_is_opened_again_and_told_once(
    store: Store, tmp_path: Path, sim: SimClock, caplog: pytest.LogCaptureFixture
) -> None:
    packets = list(footage.stamped(footage.numbered(60), "", sim.utc_ns()))
    minute = 60 * NS_PER_S
    sessions = [
        every(packets, 10_000, 10_000, sim.utc_ns() + turn * 2 * minute, turn * 2 * minute)
        for turn in range(6)
    ]
    well = every(packets, 300, 10, sim.utc_ns() + 12 * minute, 12 * minute)
    desk = Desk(store, tmp_path, Script(*sessions, well), sim)
    caplog.set_level("INFO")
    states, taken = [], []
    for _ in range(6):
        with pytest.raises(SourceLost, match="no key frame"):
            desk.record(20_000, lambda _: states.append(desk.recorder.health().state))
        taken.append(desk.packets)
    assert [count // 100 for count in taken] == [1, 2, 4, 6, 6, 6]  # seconds / 10
    assert states[: taken[0]] == ["streaming"] * taken[0]
    assert set(states[taken[0] :]) == {"no_keyframe"}
    assert caplog.text.count("camera no_keyframe") == 1
    assert all(row["state"] == "closed" and row["packets"] < 610 for row in segments(store))
    states.clear()
    with pytest.raises(SourceLost, match="ended"):
        desk.record(20_000, lambda _: states.append(desk.recorder.health().state))
    assert states[5] == "no_keyframe"
    assert states[20] == "streaming"
    assert "no key frame" in gaps(store)[0]["reason"]


def test_rare_key_frames_are_waited_for_once_their_pace_is_known(
    store: Store, tmp_path: Path, sim: SimClock
) -> None:
    packets = list(footage.stamped(footage.numbered(60), "", sim.utc_ns()))
    hour = 3600 * NS_PER_S
    sessions = [
        every(packets, 2000, 150, sim.utc_ns() + turn * hour, turn * hour) for turn in range(2)
    ]
    desk = Desk(store, tmp_path, Script(*sessions), sim)
    for told in ("no key frame", "ended"):
        with pytest.raises(SourceLost, match=told):
            desk.record(20_000)
    assert sum(row["packets"] for row in segments(store)) >= 2000
    assert desk.recorder.health().state == "lost"


def test_huge_groups_do_not_fill_the_memory(store: Store, tmp_path: Path, sim: SimClock) -> None:
    packets = list(footage.stamped(footage.noisy(30), "", sim.utc_ns()))  # 150 kB a picture
    desk = Desk(store, tmp_path, Script(every(packets, 300, 100_000, sim.utc_ns(), 0)), sim)
    most = []
    with pytest.raises(SourceLost, match="no key frame"):
        desk.record(20_000, lambda _: most.append(desk.recorder.health().ring_bytes))
    assert 10 << 20 < max(most) <= 16 << 20
