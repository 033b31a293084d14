"""A recording that no player opens: what is brought back is what was recorded, no picture else."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import pytest

from agent import cli
from agent.core.errors import AgentError, ConfigError, StorageError, Unsupported
from agent.docking import rescue
from tests.docking import clips
from tests.docking.clips import FPS, MODES, PICTURES, Shown

CUTS = (0.1, 0.5, 0.9, 0.99)

pytestmark = pytest.mark.video


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out.mp4"


def cut(original: Path, target: Path, share: float) -> Path:
    data = original.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def is_part(found: list[Shown], original: list[Shown]) -> bool:
    """Whether pictures are the original's, in their order."""
    rest = iter(picture.pixels for picture in original)
    return all(picture.pixels in rest for picture in found)


@pytest.mark.parametrize("share", CUTS)
@pytest.mark.parametrize("mode", MODES)
def test_a_cut_recording_plays_again_up_to_the_cut(mode, share, stock, tmp_path, out):
    broken = cut(stock.original(mode), tmp_path / "broken.mp4", share)
    whole = clips.whole_pictures(stock.original(mode), broken.stat().st_size)
    made = rescue.rescue(broken, stock.good(mode), out)

    found = clips.shown(out)
    assert len(found) >= 0.95 * whole
    assert made.outcome.pictures == len(found)
    times = {picture.pixels: picture.time for picture in stock.shown(mode)}
    assert len(times) == PICTURES
    assert [picture.time for picture in found] == [times[picture.pixels] for picture in found]
    assert is_part(found, stock.shown(mode))


def test_nothing_of_the_file_is_changed_and_the_facts_say_what_was_done(stock, tmp_path, out):
    broken = cut(stock.original("h264"), tmp_path / "broken.mp4", 0.6)
    before = (broken.read_bytes(), broken.stat().st_mtime_ns)
    made = rescue.rescue(broken, stock.good("h264"), out)
    assert (broken.read_bytes(), broken.stat().st_mtime_ns) == before

    told = json.loads(made.facts_path.read_text())
    sha256 = hashlib.sha256(before[0]).hexdigest()
    assert told["file"]["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert told["derived_from"]["files"][0]["parent_sha256"] == sha256
    good = hashlib.sha256(stock.good("h264").read_bytes()).hexdigest()
    assert told["derived_from"]["parameters"]["reference_sha256"] == good
    assert told["found"]["pictures"] == len(clips.shown(out))
    assert told["loss"]["sound"] == "left out"
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "broken.mp4",
        "out.mp4",
        "out.mp4.json",
    ]


def test_zeros_at_the_end_are_no_loss(stock, tmp_path, out):
    broken = cut(stock.original("h264"), tmp_path / "broken.mp4", 0.5)
    whole = clips.whole_pictures(stock.original("h264"), broken.stat().st_size)
    with broken.open("ab") as stream:
        stream.write(bytes(3_000_000))
        stream.truncate(stream.tell() + (256 << 20))  # room that was taken before
    made = rescue.rescue(broken, stock.good("h264"), out)
    assert len(clips.shown(out)) == whole
    assert made.zero_bytes >= 3_000_000 + (256 << 20)
    assert made.lost_s < 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("filling", [b"\0", b"\xa5\x17\x65\x88"])
def test_damage_in_the_middle_costs_the_pictures_that_need_it(mode, filling, stock, tmp_path, out):
    broken = cut(stock.original(mode), tmp_path / "broken.mp4", 0.9)
    data = bytearray(broken.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8000] = (filling * 8000)[:8000]
    broken.write_bytes(data)
    made = rescue.rescue(broken, stock.good(mode), out)
    found = clips.shown(out)
    assert is_part(found, stock.shown(mode))
    assert len(found) >= clips.whole_pictures(stock.original(mode), len(data)) - 2 * FPS
    assert made.lost_bytes > 0
    assert made.lost_s > 0
    assert all(one.time < other.time for one, other in pairwise(found))
    times = {picture.pixels: picture.time for picture in stock.shown(mode)}
    assert all(abs(one.time - times[one.pixels]) <= 0.4 for one in found)
    assert found[-1].time > 3


def test_an_index_before_the_pictures_is_used_and_the_sound_with_it(stock, tmp_path, out):
    whole = clips.record(tmp_path / "whole.mp4", muxing={"movflags": "faststart"})
    broken = cut(whole, tmp_path / "broken.mp4", 0.5)
    made = rescue.rescue(broken, stock.good("h264"), out)
    assert made.outcome.way == "index"
    assert is_part(clips.shown(out), stock.shown("h264"))
    assert clips.sound_seconds(out) == pytest.approx(PICTURES / FPS / 2, abs=0.5)


def test_whole_fragments_are_kept_with_their_sound(stock, tmp_path, out):
    muxing = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    whole = clips.record(tmp_path / "whole.mp4", muxing=muxing)
    broken = cut(whole, tmp_path / "broken.mp4", 0.7)
    made = rescue.rescue(broken, stock.good("h264"), out)
    inside = clips.whole_pictures(stock.original("h264"), int(0.7 * whole.stat().st_size))
    assert len(clips.shown(out)) >= inside - FPS
    assert made.has_sound


def test_a_recording_that_plays_is_left_alone(stock, out):
    with pytest.raises(Unsupported, match="plays as it is, 150 pictures; nothing to rescue"):
        rescue.rescue(stock.original("h264"), stock.good("h264"), out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("mode", "size"),
    [("hevc", (320, 180)), ("h264", (320, 240)), ("h264", (640, 352)), ("hevc", (160, 96))],
)
@pytest.mark.parametrize("broken_mode", ["h264", "hevc-b"])
def test_a_good_clip_of_another_kind_is_refused(broken_mode, mode, size, stock, tmp_path, out):
    broken = cut(stock.original(broken_mode), tmp_path / "broken.mp4", 0.7)
    if (broken_mode, size) == ("hevc-b", (320, 180)):
        size = (352, 180)
    other = clips.record(tmp_path / "other.mp4", mode, count=45, size=size)
    with pytest.raises(Unsupported, match=rf"broken\.mp4.*other\.mp4.*{mode} {size[0]}x{size[1]}"):
        rescue.rescue(broken, other, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.mp4", "other.mp4"]


def no_video(path: Path) -> None:
    clips.record(path, count=1)
    data = path.read_bytes().replace(b"vide", b"text")
    path.write_bytes(data)


BAD_REFERENCES = {
    "empty": lambda path: path.write_bytes(b""),
    "rubbish": lambda path: path.write_bytes(hashlib.sha512(b"x").digest() * 5000),
    "text": lambda path: path.write_text("no recording at all\n"),
    "no header": lambda path: path.write_text('{"schema": "outpost-model-header-1"}'),
    "no video": no_video,
    "broken itself": lambda path: path.write_bytes(clips.record(path).read_bytes()[:50_000]),
    "one picture": lambda path: clips.record(path, count=1),
}


@pytest.mark.parametrize("what", BAD_REFERENCES)
def test_what_is_no_good_clip_is_refused(what, stock, tmp_path, out):
    broken = cut(stock.original("h264"), tmp_path / "broken.mp4", 0.5)
    reference = tmp_path / "reference.mp4"
    BAD_REFERENCES[what](reference)
    with pytest.raises((Unsupported, StorageError), match=r"reference\.mp4"):
        rescue.rescue(broken, reference, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.mp4", "reference.mp4"]


BAD_RECORDINGS = {
    "empty": b"",
    "zeros": bytes(100_000),
    "text": b"a line of text\n" * 4000,
    "noise": b"".join(hashlib.sha512(bytes([n & 255, n >> 8])).digest() for n in range(4000)),
}


@pytest.mark.parametrize("what", BAD_RECORDINGS)
def test_what_holds_no_picture_is_said_to(what, stock, tmp_path, out):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(BAD_RECORDINGS[what])
    with pytest.raises(Unsupported, match=r"broken\.mp4: "):
        rescue.rescue(broken, stock.good("h264"), out)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.mp4"]


def test_what_is_no_file_is_refused(stock, tmp_path, out):
    for name in ("missing.mp4", "."):
        with pytest.raises(StorageError):
            rescue.rescue(tmp_path / name, stock.good("h264"), out)
    with pytest.raises(StorageError, match=r"missing\.mp4"):
        rescue.rescue(stock.original("h264"), tmp_path / "missing.mp4", out)


@pytest.mark.parametrize("taken", ["out.mp4", "out.mp4.json", "kept.json"])
def test_nothing_is_ever_written_over(taken, stock, tmp_path, out):
    broken = cut(stock.original("h264"), tmp_path / "broken.mp4", 0.5)
    (tmp_path / taken).write_text("mine")
    with pytest.raises(ConfigError, match="is there already; allowed: a new name"):
        rescue.rescue(broken, stock.good("h264"), out, tmp_path / "kept.json")
    assert (tmp_path / taken).read_text() == "mine"
    with pytest.raises(ConfigError, match="is there already"):
        rescue.rescue(broken, stock.good("h264"), broken)


@pytest.mark.parametrize("mode", ["h264-b", "hevc-b"])
def test_a_kept_header_stands_for_the_good_clip(mode, stock, tmp_path, out):
    broken = cut(stock.original(mode), tmp_path / "broken.mp4", 0.5)
    header = tmp_path / "model.json"
    rescue.rescue(broken, stock.good(mode), out, header)
    again = tmp_path / "again.mp4"
    made = rescue.rescue(broken, header, again)
    assert clips.shown(again) == clips.shown(out)
    good = hashlib.sha256(stock.good(mode).read_bytes()).hexdigest()
    assert made.header.reference_sha256 == good
    assert header.stat().st_size < 10_000  # no picture in it


def test_the_command_says_what_was_brought_back(stock, tmp_path, out, capsys):
    broken = cut(stock.original("h264"), tmp_path / "broken.mp4", 0.5)
    words = ["rescue", str(broken), "--like", str(stock.good("h264")), "--out", str(out)]
    assert cli.main(words) == 0
    told = capsys.readouterr().out
    assert "h264 320x180 at 30/s, without sound (the good clip has aac 48000 Hz, 1)" in told
    assert f"sha256 {hashlib.sha256(broken.read_bytes()).hexdigest()}" in told
    assert cli.main(words) == 78
    assert "is there already; allowed: a new name" in capsys.readouterr().err


def test_the_command_gives_the_facts_as_json(stock, tmp_path, out, capsys):
    broken = cut(stock.original("h264"), tmp_path / "broken.mp4", 0.5)
    like = ["--like", str(stock.good("h264")), "--keep-header", str(tmp_path / "kept.json")]
    assert cli.main(["rescue", str(broken), *like, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["derived_from"]["tool"] == "outpost rescue"
    assert (tmp_path / "kept.json").exists()
    assert cli.main(["rescue", str(tmp_path), *like[:2], "--out", str(tmp_path / "x.mp4")]) == 1
    assert "no file" in capsys.readouterr().err


def test_every_refusal_is_one_of_ours(stock, tmp_path, out):
    out.parent.mkdir(exist_ok=True)
    broken = cut(stock.original("h264"), tmp_path / "broken.mp4", 0.5)
    with pytest.raises(AgentError):
        rescue.rescue(broken, stock.good("h264"), tmp_path / "nowhere" / "out.mp4")
