"""Recordings and good clips that lie: refused or rescued, in bounded time and memory."""

import json
import subprocess
import sys
from pathlib import Path

import av
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core.clock import NS_PER_S, RealClock
from agent.core.errors import AgentError
from agent.docking import rescue
from agent.docking.mp4.boxes import made
from tests.docking import clips
from tests.docking.clips import MODES

GENEROUS_S = 60  # a rescue of these takes milliseconds
MOST_MIB = 400
WATCHED = """
import sys
from pathlib import Path
from agent.core.errors import AgentError
from agent.docking import rescue
try:
    rescue.rescue(*map(Path, sys.argv[1:4]))
except AgentError as error:
    print(error)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""

pytestmark = pytest.mark.video


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("small")
    return {
        mode: clips.record(folder / f"{mode}.mp4", mode, count=45, size=(160, 96)).read_bytes()
        for mode in MODES
    }


def tried(data: bytes, like: bytes, folder: Path) -> rescue.Rescued | None:
    """Rescue; nothing but our own errors may come out, and nothing may be left lying about."""
    broken, good, out = folder / "broken.mp4", folder / "good", folder / "out.mp4"
    for path in (out, rescue.facts_path(out)):
        path.unlink(missing_ok=True)
    broken.write_bytes(data)
    good.write_bytes(like)
    begun_ns = RealClock().mono_ns()
    try:
        made_file = rescue.rescue(broken, good, out)
    except AgentError:
        made_file = None
    assert (RealClock().mono_ns() - begun_ns) / NS_PER_S < GENEROUS_S
    assert broken.read_bytes() == data
    assert good.read_bytes() == like
    left = {path.name for path in folder.iterdir()} - {"broken.mp4", "good"}
    assert left == ({"out.mp4", "out.mp4.json"} if made_file else set())
    if made_file:
        with av.open(str(out)) as container:
            assert sum(packet.size > 0 for packet in container.demux(video=0)) > 0
    return made_file


def counted(value: int, size_bytes: int) -> bytes:
    return value.to_bytes(size_bytes, "big")


HOSTILE_HEADS = {
    "size of a petabyte": counted(1, 4) + b"mdat" + counted(1 << 50, 8),
    "size of all bits": counted(1, 4) + b"mdat" + b"\xff" * 8,
    "negative": b"\xff\xff\xff\xffmoov",
    "smaller than its head": counted(3, 4) + b"free",
    "up to the end": counted(0, 4) + b"moov",
    "in itself": counted(16, 4) + b"moov" + counted(16, 4) + b"moov",
    "a million": made(b"free") * 1_000_001,
    "a thousand deep": counted(1 << 20, 4) + b"moov" + (counted(1 << 19, 4) + b"trak") * 1000,
    "index of nothing": made(b"moov", made(b"trak", made(b"mdia"))),
    "two types": made(b"ftyp", b"isom") * 2,
}


@pytest.mark.parametrize("what", HOSTILE_HEADS)
def test_boxes_that_lie(what, small, tmp_path):
    good = small["hevc-b"]
    pictures = good[good.index(b"mdat") + 4 : -3000]
    head = made(b"ftyp", b"isom\0\0\2\0isomiso2mp41") + HOSTILE_HEADS[what]
    if what != "a million":  # seconds: the index of a good clip is looked for in the same way
        tried(head + pictures, good, tmp_path)
    tried(good, head + pictures, tmp_path)


TABLES = {b"stsz": 12, b"stco": 8, b"stsc": 8, b"stts": 8, b"ctts": 8, b"stss": 8, b"stsd": 8}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("value", [0, 1, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_tables_of_an_index_that_lie(table, value, small, tmp_path):
    good = bytearray(small["h264-b"])
    place = good.index(table) + TABLES[table] - 4 + 4
    good[place - 4 : place] = counted(value, 4)
    tried(bytes(good), small["h264-b"], tmp_path)
    tried(small["h264-b"][:-3000], bytes(good), tmp_path)


def test_memory_does_not_grow_with_the_file(stock, tmp_path):
    broken = tmp_path / "broken.mp4"
    data = stock.original("h264").read_bytes()
    media = data[: int(len(data) * 0.95)]
    with broken.open("wb") as stream:
        for _ in range(-(-(8 << 20) // len(media))):
            stream.write(media)
    words = [str(broken), str(stock.good("h264")), str(tmp_path / "out.mp4")]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) / 1024 < MOST_MIB


Damage = list[tuple[str, float, int, bytes]]
damages: st.SearchStrategy[Damage] = st.lists(
    st.tuples(
        st.sampled_from(["cut", "write", "zero", "drop", "insert", "twice"]),
        st.floats(0, 1),
        st.integers(1, 5000),
        st.binary(min_size=1, max_size=16),
    ),
    max_size=6,
)


def damaged(data: bytes, damage: Damage) -> bytes:
    for what, share, count, filling in damage:
        place = int(share * len(data))
        before, piece, after = data[:place], data[place : place + count], data[place + count :]
        data = {
            "cut": before,
            "write": before + (filling * count)[: len(piece)] + after,
            "zero": before + bytes(len(piece)) + after,
            "drop": before + after,
            "insert": before + filling + piece + after,
            "twice": before + piece + piece + after,
        }[what]
    return data


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(mode=st.sampled_from(MODES), damage=damages, is_cut=st.booleans())
def test_any_damage_is_borne(small, tmp_path, mode, damage, is_cut):
    good = small[mode]
    tried(damaged(good[: len(good) - 3000 * is_cut], damage), good, tmp_path)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(mode=st.sampled_from(MODES), damage=damages)
def test_any_damage_to_the_good_clip_is_borne(small, tmp_path, mode, damage):
    good = small[mode]
    tried(good[:-3000], damaged(good, damage), tmp_path)


@pytest.fixture(scope="module")
def header(small, tmp_path_factory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("header")
    broken, good = folder / "broken.mp4", folder / "good.mp4"
    broken.write_bytes(small["hevc-b"][:-3000])
    good.write_bytes(small["hevc-b"])
    rescue.rescue(broken, good, folder / "out.mp4", folder / "kept.json")
    return json.loads((folder / "kept.json").read_text())


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.text(max_size=4), max_size=3),
    st.dictionaries(st.text("0123456789abcdef", max_size=4), st.integers(), max_size=3),
)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(choice=st.integers(0, 30), value=values)
def test_a_kept_header_that_lies_is_borne(small, header, tmp_path, choice, value):
    names = [*header, "more"]
    changed = header | {names[choice % len(names)]: value}
    tried(small["hevc-b"][:-3000], json.dumps(changed).encode(), tmp_path)
