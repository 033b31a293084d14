"""What a file is, learnt in a process of its own: whatever becomes of that is told in words."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from agent.docking import confined
from agent.docking.confined import Limits
from agent.docking.headers import header_path, headers_of, rescue_by_any
from agent.docking.probe import Probe, keep_header, probe, rescue_in_child
from tests.docking import clips
from tests.docking.clips import MODES

pytestmark = pytest.mark.video


@pytest.fixture
def broken(stock, tmp_path):
    path = tmp_path / "broken.mp4"
    path.write_bytes(stock.original("h264-b").read_bytes()[:-20_000])
    return path


@pytest.mark.parametrize("mode", MODES)
def test_a_recording_that_plays(mode, stock):
    path = stock.original(mode)
    found = probe(path)
    assert found == Probe(
        size_bytes=path.stat().st_size,
        container="mp4",
        codec=mode.removesuffix("-b"),
        width_px=320,
        height_px=180,
        duration_ms=found.duration_ms,
        is_playable=True,
        has_sound=True,
    )
    assert found.duration_ms == pytest.approx(5000, abs=100)


def test_an_open_file_is_told_as_its_path_is_and_stands_where_it_stood(stock):
    descriptor = os.open(stock.original("h264"), os.O_RDONLY)
    os.lseek(descriptor, 77, os.SEEK_SET)
    assert probe(descriptor) == probe(stock.original("h264"))
    assert os.lseek(descriptor, 0, os.SEEK_CUR) == 77
    os.close(descriptor)


def test_the_time_that_a_container_tells(tmp_path):
    path = clips.record(
        tmp_path / "a.mp4", count=5, metadata={"creation_time": "2024-03-01T05:06:07Z"}
    )
    assert probe(path).created == "2024-03-01T05:06:07.000000Z"


def test_words_of_a_camera_in_another_encoding_do_not_matter(stock, tmp_path):
    data = stock.original("h264-b").read_bytes()
    place = data.index(b"Lavf", data.index(b"ilst"))
    path, header, target = tmp_path / "gbk.mp4", tmp_path / "h.json", tmp_path / "out.mp4"
    path.write_bytes(data[:place] + "执法".encode("gbk") + data[place + 4 :])
    assert probe(path).is_playable
    assert keep_header(path, header) == ""
    (tmp_path / "broken.mp4").write_bytes(data[:-20_000])
    assert rescue_in_child(tmp_path / "broken.mp4", header, target).why == ""


@pytest.mark.parametrize("format_name", ["matroska", "mpegts", "mov"])
def test_other_containers(format_name, stock, tmp_path):
    path = clips.rewritten(stock.original("h264"), tmp_path / "a", format_name)
    found = probe(path)
    assert (found.container, found.codec, found.is_playable) == (format_name, "h264", True)


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_a_recording_without_its_index(share, stock, tmp_path):
    path = tmp_path / "cut.mp4"
    path.write_bytes(cut(stock.original("h264").read_bytes(), share) + bytes(5000))
    found = probe(path)
    assert (found.container, found.is_playable) == ("mp4", False)
    assert found.why in ("its index is missing", "its index cannot be read")
    assert found.zero_tail_bytes >= 5000


@pytest.mark.parametrize("share", [0.3, 0.97])
@pytest.mark.parametrize("muxing", ["faststart", "frag_keyframe+empty_moov"])
def test_a_recording_that_ends_too_early_for_its_index(share, muxing, tmp_path):
    whole = clips.record(tmp_path / "whole.mp4", muxing={"movflags": muxing})
    assert probe(whole).is_playable
    path = tmp_path / "cut.mp4"
    path.write_bytes(cut(whole.read_bytes(), share))
    found = probe(path)
    assert (found.is_playable, found.why) == (False, "it ends too early")


def test_what_follows_a_whole_recording_does_not_matter(stock, tmp_path):
    path = tmp_path / "more.mp4"
    path.write_bytes(stock.original("hevc").read_bytes() + bytes(70_000))
    assert probe(path).is_playable
    assert probe(path).zero_tail_bytes == 70_000


NONE = {
    b"": "unreadable: empty",
    bytes(9000): "unreadable: nothing but zeros",
    b"#EXTM3U\n#EXTINF:5,\nfile:///etc/passwd\n": "unreadable: Invalid data",
    b"ffconcat version 1.0\nfile /etc/passwd\n": "unreadable: Invalid ",
    b"a line of text\n" * 999: "unreadable: ",
}


@pytest.mark.parametrize(("content", "why"), NONE.items(), ids=range(len(NONE)))
def test_what_is_no_recording(content, why, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    found = probe(path)
    assert found.why.startswith(why)
    assert (found.size_bytes, found.is_playable, found.container) == (len(content), False, "")


def test_what_is_no_plain_file(stock, tmp_path):
    (tmp_path / "link").symlink_to(stock.original("h264"))
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", ".", "missing", "a\0b"):
        assert probe(tmp_path / name).why.startswith("unreadable: "), name


def test_our_process_never_loads_a_decoder(stock, broken):
    script = (
        "import sys\nfrom pathlib import Path\nfrom agent.docking import headers, probe\n"
        "found = probe.probe(Path(sys.argv[1]))\nassert found.is_playable\n"
        "good, bad = map(Path, sys.argv[1:])\n"
        "why = probe.keep_header(good, bad.with_name('h.json'))\nassert not why, why\n"
        "made = probe.rescue_in_child(bad, bad.with_name('h.json'), bad.with_name('o.mp4'))\n"
        "assert made.pictures > 100, made\n"
        "print(sorted({'av', 'numpy', 'cv2', 'agent.docking.mp4'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", script, str(stock.original("h264-b")), str(broken)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


SANDBOX = """
import ctypes, os, platform, struct, sys
libc = ctypes.CDLL(None)
numbers = {"x86_64": (141, 160), "aarch64": (140, 164)}  # setpriority, setrlimit
steps = [(0x20, 0, 0, 0)]
for number in numbers[platform.machine()]:
    steps += [(0x15, 0, 1, number), (0x06, 0, 0, 0x0005_0000 | 1)]  # EPERM
steps.append((0x06, 0, 0, 0x7FFF_0000))
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
class Filter(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("code", ctypes.c_void_p)]
filter = Filter(len(steps), ctypes.addressof(code))
libc.prctl(38, 1, 0, 0, 0)  # no new privileges
if libc.prctl(22, 2, ctypes.byref(filter), 0, 0):
    sys.exit(77)
libc.prctl(65, 1, 0, 0, 0)  # no memory both written and run, where the kernel knows that
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def test_it_works_under_the_units_restrictions(stock, tmp_path):
    """`SystemCallFilter=~@resources` and `MemoryDenyWriteExecute` of systemd/outpost.service."""
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom agent.docking.probe import probe\n"
        "try:\n    os.nice(1)\nexcept PermissionError:\n"
        "    print(probe(Path(sys.argv[1])).is_playable)"
    )
    words = [sys.executable, "-c", SANDBOX, "-c", script, str(stock.original("h264"))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("the kernel takes no system call filter")
    assert (done.stdout, done.stderr) == ("True\n", "")


BAD_READERS = {
    "crash": ("kill -SEGV $$", "its reader ended by signal 11"),
    "error": ("exit 3", "its reader ended by code 3"),
    "silence": ("exit 0", "its reader told nothing"),
    "no JSON": ("echo '{'", "its reader told nothing"),
    "a list": ("echo '[1]'", "its reader told nothing"),
    "too much": ("exec cat /dev/zero", "its reader told more than allowed"),
    "a number": ("""echo '{"container": 7}'""", "its reader told nonsense"),
    "negative": ("""echo '{"container": "mp4", "width_px": -1}'""", "its reader told nonsense"),
    "true": ("""echo '{"container": "mp4", "width_px": true}'""", "its reader told nonsense"),
    "escapes": (r"""echo '{"why": "\u001b[2J\u202e"}'""", "?[2J?"),
}


@pytest.mark.parametrize("what", BAD_READERS)
def test_whatever_becomes_of_the_reader_is_told(what, stock, broken, tmp_path, monkeypatch):
    script, why = BAD_READERS[what]
    reader = tmp_path / "reader"
    reader.write_text(f"#!/bin/sh\n{script}\n")
    reader.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(reader))
    found = probe(stock.original("h264"))
    assert (found.why, found.is_playable) == (f"unreadable: {why}", False)
    if what not in ("a number", "negative", "true"):
        assert keep_header(stock.original("h264"), tmp_path / "h.json") == why
    made = rescue_in_child(broken, stock.good("h264-b"), tmp_path / "out.mp4")
    assert made.why in (why, "its reader made nothing")


def test_a_reader_that_hangs_is_ended_with_all_it_started(tmp_path, monkeypatch):
    reader = tmp_path / "reader"
    reader.write_text("#!/bin/sh\nsleep 600 &\nexec sleep 600\n")
    reader.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(reader))
    assert confined.told("probe", ["x"], Limits(cpu_s=0)) == {"why": "took longer than 0 s"}


class Ended(Exception):
    """The agent stops."""


def test_work_tells_that_it_goes_on_and_can_be_ended(stock, broken, tmp_path, monkeypatch):
    ticks = []
    target = tmp_path / "out.mp4"
    assert rescue_in_child(broken, stock.good("h264-b"), target, lambda: ticks.append(1)).why == ""
    assert len(ticks) > 1
    reader = tmp_path / "reader"
    reader.write_text(f"#!/bin/sh\necho part > {tmp_path}/later.mp4.search.part\nexec sleep 600\n")
    reader.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(reader))

    def stop() -> None:
        if (tmp_path / "later.mp4.search.part").exists():
            raise Ended

    with pytest.raises(Ended):
        rescue_in_child(broken, stock.good("h264-b"), tmp_path / "later.mp4", stop)
    assert {path.name for path in tmp_path.iterdir()} == {"broken.mp4", "out.mp4", "reader"}


def test_a_rescue_that_the_disk_has_no_room_for_is_not_begun(stock, tmp_path):
    huge = tmp_path / "huge.mp4"
    with huge.open("wb") as stream:
        stream.truncate(1 << 42)  # a sparse one
    told = rescue_in_child(huge, stock.good("h264"), tmp_path / "out.mp4")
    assert "bytes of disk for a while; free: " in told.why
    assert told.may_pass, "it is tried again"


def test_a_reader_has_little_of_everything(stock, broken, tmp_path):
    words = [str(broken), str(stock.good("h264-b")), str(tmp_path / "out.mp4")]
    told = confined.told("rescue", words, Limits(memory_mib=60))["why"]
    assert "reader ended by code" in told or "memory" in told
    told = confined.told("rescue", words, Limits(file_bytes=1000))["why"]
    assert "not written" in told or "large" in told
    endless = "while True: pass"
    limited = (
        "from agent.docking import mediachild\n"
        f"mediachild._JOBS['endless'] = lambda: exec({endless!r})\n"
        "mediachild.main(['1', '900', '0', 'endless'])"
    )
    done = subprocess.run([sys.executable, "-c", limited], timeout=60, check=False)
    assert confined._answer(done.returncode, b"")["why"] == "took more computing time than allowed"


def test_a_rescue_in_a_child_is_the_same_as_one_here(stock, broken, tmp_path):
    header, target = tmp_path / "kept" / "h.json", tmp_path / "out.mp4"
    assert keep_header(stock.good("h264-b"), header, "ab" * 32) == ""
    made = rescue_in_child(broken, header, target)
    assert (made.why, made.way, made.reference_sha256) == ("", "search", "ab" * 32)
    assert made.pictures == len(clips.shown(target))
    assert probe(target).is_playable
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.mp4", "kept", "out.mp4"]
    assert rescue_in_child(broken, header, target).why.endswith("out.mp4: is there already")
    assert target.exists()


def test_what_cannot_be_rescued_leaves_nothing(stock, broken, tmp_path):
    made = rescue_in_child(broken, stock.good("hevc"), tmp_path / "out.mp4")
    assert "looks like h264" in made.why
    assert keep_header(broken, tmp_path / "h.json") != ""
    missing = rescue_in_child(tmp_path / "missing", stock.good("hevc"), tmp_path / "out.mp4")
    assert "No such file" in missing.why
    assert [path.name for path in tmp_path.iterdir()] == ["broken.mp4"]


def test_headers_are_kept_by_model_firmware_and_mode(stock, broken, tmp_path):
    assert "no good recording" in rescue_by_any(broken, [], tmp_path / "out.mp4").why
    for mode in ("h264-b", "hevc"):
        path = header_path(tmp_path, "A7", "1.2", probe(stock.good(mode)))
        assert keep_header(stock.good(mode), path) == ""
    names = [path.name for path in headers_of(tmp_path, "A7", "1.2")]
    assert sorted(name.split("-", 1)[1] for name in names) == [
        "1.2-h264-320x180.json",
        "1.2-hevc-320x180.json",
    ]
    assert headers_of(tmp_path, "A7", "1.3") == []
    made = rescue_by_any(broken, headers_of(tmp_path, "A7", "1.2"), tmp_path / "out.mp4")
    assert (made.why, made.codec) == ("", "h264")


def test_a_cameras_own_words_make_no_path(tmp_path):
    found = Probe(codec="h264", width_px=1920, height_px=1080)
    words = ["A7", "a7", "a_7", "../../etc", "..", "", "x" * 300, "A\n7", "Ж", "a-7", "\udcff", "*"]
    paths = {header_path(tmp_path, word, "1", found) for word in words}
    assert len(paths) == len(words)
    for path in paths:
        assert path.parent == tmp_path / "headers"
        assert path.name.isascii()
        assert len(path.name) < 150
    assert headers_of(tmp_path, "*", "*") == []
    told = header_path(tmp_path, "a7", "1", replace(found, codec="../x"))
    assert told.parent == tmp_path / "headers"
