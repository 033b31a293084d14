"""What a start makes of the remains of a crash: rows that tell the truth, nothing deleted."""

import contextlib
import hashlib
import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import av.error
import pytest

from agent.core.clock import NS_PER_S, SimClock
from agent.core.store import Store
from agent.evidence import custody
from agent.vision.disks import STATE_DIR, Disks, Folder
from agent.vision.recovery import Recovered, recover
from agent.vision.remux import Template, demux
from agent.vision.segment import Place, SegmentWriter
from tests import footage
from tests.vision.recording import CAMERA, rows, segments, sha256

pytestmark = pytest.mark.video

START_NS = 1_790_000_000 * NS_PER_S


def note(connection, kind, subject, detail) -> object:
    return custody.append(connection, SimClock(), kind, subject, detail)


@pytest.fixture
def settle(store: Store, tmp_path: Path):
    return partial(recover, store, Disks(tmp_path, store, SimClock()), note)


def killed(store: Store, folder: Path, path: Path, packets: int = 45, run: str = "7-1-a") -> Path:
    """Leave an open row and a file as a killed recorder does."""
    found = list(footage.stamped(path, run, START_NS))[:packets]
    template = Template("h264", found[0].payload)
    place = Place(CAMERA, store, Disks(folder, store, SimClock()))
    segment = SegmentWriter(place, Folder(STATE_DIR, folder), template, found[0])
    segment.open()
    for packet in found:
        segment.add(packet)
    segment.abandon()
    template.close()
    return folder / segments(store)[-1]["path"]


def everything(folder: Path) -> set[str]:
    return {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for place in ("segments", "quarantine")
        for path in (folder / place).rglob("*")
        if path.is_file()
    }


def test_clean_start_changes_nothing(store, settle) -> None:
    assert settle() == Recovered()
    assert rows(store, "SELECT * FROM custody") == []


def test_killed_segment_is_recovered_with_its_hash(store, tmp_path, settle) -> None:
    path = killed(store, tmp_path, footage.numbered(60))
    before = everything(tmp_path)
    assert settle() == Recovered(segments=1)
    (row,) = segments(store)
    assert (row["state"], row["packets"]) == ("recovered", 40)
    assert (row["size_bytes"], row["sha256"]) == (path.stat().st_size, sha256(path))
    assert row["end_utc_ns"] == START_NS + 39 * NS_PER_S // 10
    last = list(footage.stamped(footage.numbered(60), "", 0))[39]
    assert row["last_dts"] == last.dts
    assert footage.numbers(path) == list(range(40))
    assert everything(tmp_path) == before
    (entry,) = rows(store, "SELECT * FROM custody")
    assert (entry["kind"], entry["subject"]) == ("segment.recovered", row["path"])
    assert settle() == Recovered()


@pytest.mark.parametrize("share", [0.95, 0.63, 0.4])
def test_file_cut_short_keeps_what_is_whole(store, tmp_path, settle, share: float) -> None:
    path = killed(store, tmp_path, footage.noisy(30), 30)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert settle() == Recovered(segments=1)
    (row,) = segments(store)
    assert row["packets"] == len(list(demux(path)))
    assert 20 * share - 2 <= row["packets"] <= 20 * share + 1
    assert row["sha256"] == sha256(path)
    assert path.stat().st_size == int(len(content) * share)


def test_zeroed_tail_is_not_counted_as_pictures(store, tmp_path, settle) -> None:
    path = killed(store, tmp_path, footage.numbered(60), 45)
    content = path.read_bytes()
    cut = len(content) - 4_000
    path.write_bytes(content[:cut] + bytes(4_000))
    assert settle() == Recovered(segments=1)
    (row,) = segments(store)
    decoder = av.CodecContext.create("h264", "r")
    seen = []
    for packet in demux(path):
        seen += [footage._number(frame) for frame in decoder.decode(av.Packet(bytes(packet)))]
    whole = row["packets"] - 1  # the last one may be cut by the zeros
    assert seen[:whole] == list(range(whole))
    assert 10 <= row["packets"] < 40
    assert row["sha256"] == sha256(path)


def test_twenty_zeroed_kilobytes_of_a_big_file(store, tmp_path, settle) -> None:
    path = killed(store, tmp_path, footage.noisy(30), 30)
    content = path.read_bytes()
    path.write_bytes(content[:-20_000] + bytes(20_000))
    assert settle() == Recovered(segments=1)
    assert segments(store)[0]["packets"] in (19, 20)


@pytest.mark.parametrize("content", [b"", b"\0" * 20_000, b"ftyp"])
def test_unreadable_file_is_set_aside_and_its_row_says_so(
    store, tmp_path, settle, content: bytes
) -> None:
    path = killed(store, tmp_path, footage.numbered(60))
    path.write_bytes(content)
    assert settle() == Recovered(damaged=1)
    assert segments(store)[0]["state"] == "damaged"
    assert not path.exists()
    aside = tmp_path / "quarantine" / f"{CAMERA}-{path.name}"
    assert aside.read_bytes() == content
    (entry,) = rows(store, "SELECT * FROM custody")
    assert entry["kind"] == "file.quarantined"
    assert settle() == Recovered()


def test_row_without_a_file_is_damaged(store, tmp_path, settle) -> None:
    killed(store, tmp_path, footage.numbered(60)).unlink()
    assert settle() == Recovered(damaged=1)
    assert segments(store)[0]["state"] == "damaged"


def test_file_without_a_row_is_set_aside_never_over_another(store, tmp_path, settle) -> None:
    folder = tmp_path / "segments" / "yard"
    folder.mkdir(parents=True)
    for content in (b"one", b"two", b"three"):
        (folder / "x.mp4").write_bytes(content)
        assert settle() == Recovered(quarantined=1)
    kept = {path.read_bytes() for path in (tmp_path / "quarantine").iterdir()}
    assert kept == {b"one", b"two", b"three"}
    assert len(rows(store, "SELECT * FROM custody")) == 3


def test_closed_rows_are_left_alone(store, tmp_path, settle) -> None:
    path = killed(store, tmp_path, footage.numbered(60))
    settle()
    before = segments(store)
    path.write_bytes(b"changed by somebody: verify finds it, recovery does not touch it")
    assert settle() == Recovered()
    assert segments(store) == before


def test_many_remains_are_settled_in_one_start(store, tmp_path, settle) -> None:
    paths = [
        killed(store, tmp_path, footage.numbered(60), 20 + 10 * number, f"7-{number}-a")
        for number in range(4)
    ]
    paths[1].write_bytes(b"")
    (paths[0].parent / "stray.mp4").write_bytes(b"stray")
    before = everything(tmp_path)
    assert settle() == Recovered(segments=3, damaged=1, quarantined=1)
    assert everything(tmp_path) == before
    assert [row["state"] for row in segments(store)] == [
        "recovered",
        "damaged",
        "recovered",
        "recovered",
    ]


CASES = 400


def damage(dice: random.Random, content: bytes) -> tuple[str, int, bytes]:
    """Do what a kill or a power cut may do to the end of a growing file: how, where, the result."""
    cut = dice.randrange(len(content) + 1)
    lost = len(content) - cut
    how = dice.choice(("cut", "cut", "zeros", "garbage", "zeros and more", "garbage and more"))
    tail = {
        "cut": b"",
        "zeros": bytes(lost),
        "garbage": dice.randbytes(lost),
        "zeros and more": bytes(lost + dice.randrange(1, 100_000)),
        "garbage and more": dice.randbytes(lost + dice.randrange(1, 100_000)),
    }[how]
    return how, cut, content[:cut] + tail


def whole_pictures(content: bytes, path: Path, cut: int) -> int:
    """Count the pictures in groups that lie before a place, in the undamaged file."""
    path.write_bytes(content)
    with av.open(str(path)) as container:
        ends = [packet.pos + packet.size for packet in container.demux(video=0) if packet.size]
    whole = sum(1 for end in ends if end <= cut)
    return whole // footage.GOP * footage.GOP


def shown(path: Path) -> list[int]:
    """Play a file as a player does that stops at the first thing it cannot read."""
    seen = []
    with av.open(str(path)) as container, contextlib.suppress(av.error.FFmpegError):
        seen.extend(footage._number(frame) for frame in container.decode(video=0))
    return seen


@pytest.mark.parametrize("source", [footage.numbered, footage.noisy], ids=["small", "big"])
def test_whatever_the_end_of_a_file_became_whole_groups_play(
    store, tmp_path, settle, source: Callable[[int], Path]
) -> None:
    dice = random.Random(20)
    path = killed(store, tmp_path, source(30), 30)
    content = path.read_bytes()
    aside = tmp_path / "whole.mp4"
    for case in range(CASES // 2):
        how, cut, damaged = damage(dice, content)
        told = f"case {case}: {how} at {cut} of {len(content)}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(damaged)
        reopen = "UPDATE segment SET state = 'open', packets = 0, size_bytes = 0, sha256 = ''"
        store.write(lambda connection, query=reopen: connection.execute(query).rowcount)
        found = settle()
        (row,) = segments(store)
        wanted = whole_pictures(content, aside, cut)
        assert hashlib.sha256(damaged).hexdigest() in everything(tmp_path), told  # as it was
        if row["state"] == "damaged":
            assert (wanted, found) == (0, Recovered(damaged=1)), told
            assert not path.exists(), told
            continue
        assert found == Recovered(segments=1), told
        assert (row["size_bytes"], row["sha256"]) == (path.stat().st_size, sha256(path)), told
        assert wanted <= row["packets"] <= 20, told
        packets = list(demux(path))
        assert len(packets) == row["packets"], told
        span_ns = row["end_utc_ns"] - row["start_utc_ns"]
        assert abs(span_ns - (row["packets"] - 1) * NS_PER_S // 10) < 1000, told
        assert all(packet.is_keyframe == (place % 10 == 0) for place, packet in enumerate(packets))
        if source is footage.numbered:
            decoder = av.CodecContext.create("h264", "r")
            frames = [
                frame
                for packet in packets[:wanted]
                for frame in decoder.decode(av.Packet(bytes(packet)))
            ]
            assert [footage._number(frame) for frame in frames] == list(range(len(frames))), told
            assert len(frames) >= wanted - 1, told
            assert shown(path)[:wanted] == list(range(wanted)), told  # for any player


def test_file_that_a_power_cut_left_shorter_than_its_row_is_settled_once(
    store, tmp_path, settle
) -> None:
    path = killed(store, tmp_path, footage.numbered(60))
    path.write_bytes(b"")
    other = killed(store, tmp_path, footage.numbered(60), 30, "7-2-a")
    other.unlink()
    assert settle() == Recovered(damaged=2)
    assert settle() == Recovered()
    assert [row["state"] for row in segments(store)] == ["damaged", "damaged"]


def test_rescued_head_tells_what_it_is_derived_from(store, tmp_path, settle) -> None:
    path = killed(store, tmp_path, footage.numbered(60), 45)
    content = path.read_bytes()
    last = content.rfind(b"moof") - 4
    damaged = content[: last + 40] + bytes(len(content) - last - 40)
    path.write_bytes(damaged)
    assert settle() == Recovered(segments=1)
    (row,) = segments(store)
    assert (row["packets"], row["sha256"]) == (30, sha256(path))
    assert footage.numbers(path) == list(range(30))
    (entry,) = rows(store, "SELECT * FROM custody")
    detail = json.loads(entry["detail"])
    assert detail["derived_from"] == hashlib.sha256(damaged).hexdigest()
    assert (tmp_path / detail["original"]).read_bytes() == damaged
