"""The technician's commands, as they are typed and read."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent import app, cli
from agent.core.model import Box, Sight, Track, TrackPoint, View
from agent.vision import calibration, tracklog
from tests.vision.poses import YARD, Pose

POSE = Pose(size=(1280, 720))


def words(places, noise_px=1.0) -> list[str]:
    found = POSE.survey(places, noise_px, seed=2)
    return [
        f"{mark.x * 1280:.1f},{mark.y * 720:.1f}={mark.x_m:g},{mark.y_m:g}" for mark in found.marks
    ]


@pytest.fixture
def snapshot(tmp_path) -> Path:
    path = tmp_path / "yard.jpg"
    cv2.imwrite(str(path), np.full((720, 1280, 3), 90, np.uint8))
    return path


def calibrate(snapshot: Path, *options: str) -> int:
    out = str(snapshot.with_name("yard.json"))
    return cli.main(["calibrate", "--snapshot", str(snapshot), "--out", out, *options])


def test_calibrate_writes_a_file_that_check_accepts(snapshot, capsys, folder_with_camera):
    one, other = (f"{x * 1280:.1f},{y * 720:.1f}" for x, y in POSE.see([(-2, 10), (2, 10)]))
    grid = snapshot.with_name("grid.jpg")
    code = calibrate(
        snapshot, "--points", *words(YARD), "--check", f"{one} {other} = 4", "--grid", str(grid)
    )
    told = capsys.readouterr().out
    assert code == 0
    assert "verified  yes" in told
    assert "check     4 m measures" in told
    assert "a line every 1 m" in told
    found = calibration.read(snapshot.with_name("yard.json"))
    assert found.calibration_id == "yard"
    assert found.residual_px < 3
    drawn = cv2.imread(str(grid))
    assert drawn.shape == (720, 1280, 3)
    assert (np.abs(drawn.astype(int) - 90).max(axis=2) > 60).mean() > 0.01, "nothing was drawn"
    file = folder_with_camera(calibration_path=str(snapshot.with_name("yard.json")))
    assert app.effective(file, ())["cameras.0.calibration"].startswith("yard: 8 points, residual")


def test_a_rectangle_calibrates_unverified(snapshot, capsys):
    corners = " ".join(
        f"{x * 1280:.1f},{y * 720:.1f}" for x, y in POSE.see([(-2, 9), (2, 9), (2, 21), (-2, 21)])
    )
    assert calibrate(snapshot, "--rectangle", corners, "--sides", "4x12") == 0
    assert "NO: 4 points always fit" in capsys.readouterr().out
    ground = calibration.load(snapshot.with_name("yard.json"))
    assert ground.project(*POSE.see([(0, 15)])[0]) == pytest.approx((2, 6), abs=0.05)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--points", *words(YARD[:3])], "3 points"),
        (["--points", *words(YARD[:5]), "700,300=90,90"], "allowed"),
        (["--rectangle", "1,1 9,1 9,9 1,9"], "--sides"),
        (["--sides", "3x4", "--points", *words(YARD)], "--rectangle"),
        (["--points", *words(YARD), "--check", "nonsense"], "--check"),
        (["--points", *words(YARD), "--check", "1,1 9999,2 = 3"], "outside"),
        (["--points", *words(YARD), "--straight", "1,1 2,2"], "straight"),
    ],
)
def test_what_cannot_be_calibrated_writes_nothing(snapshot, capsys, options, word):
    assert calibrate(snapshot, *options) == 78
    assert word in capsys.readouterr().err
    assert not snapshot.with_name("yard.json").exists()


def test_a_snapshot_that_is_no_picture_is_named(tmp_path, capsys):
    for content in (b"", b"no picture"):
        (tmp_path / "x.jpg").write_bytes(content)
        assert calibrate(tmp_path / "x.jpg", "--points", *words(YARD)) == 78
        assert "no picture; allowed: a JPEG or PNG" in capsys.readouterr().err
    assert calibrate(tmp_path / "gone.jpg", "--points", *words(YARD)) == 78


def test_a_name_that_cannot_be_an_id_is_refused(snapshot, capsys):
    code = cli.main(
        ["calibrate", "--snapshot", str(snapshot), "--out", str(snapshot.with_name("My Yard.json")),
         "--points", *words(YARD)]
    )  # fmt: skip
    assert code == 78
    assert "My Yard.json" in capsys.readouterr().err


def test_check_and_run_refuse_a_bad_calibration(tmp_path, capsys, folder_with_camera):
    (tmp_path / "bent.json").write_text(json.dumps({"sv": 1}))
    file = folder_with_camera(calibration_path=str(tmp_path / "bent.json"))
    for word in ("check", "run"):
        assert cli.main([word, "--config", str(file)]) == 78
        assert "bent.json" in capsys.readouterr().err


# Track logs.


RULES = """
[[cameras.zones]]
name = "crossing"
points = [[0.3, 0.3], [0.8, 0.3], [0.8, 0.9], [0.3, 0.9]]
[[cameras.rules]]
kind = "loiter"
name = "stays"
zone = "crossing"
%s
"""


def track_log(folder: Path, camera: str = "yard", seconds: int = 45) -> Path:
    """A log of somebody who stands for some seconds."""
    keeper = tracklog.Writer(tracklog.Keeper(folder, 7, 10), tracklog.Session(camera, "eye@1"))
    past: tuple[TrackPoint, ...] = ()
    for step in range(seconds * 2 + 20):
        t_us = step * 500_000
        past = (*past, TrackPoint(t_us, Box(0.5, 0.4, 0.1, 0.2), Sight.DETECTED))[-200:]
        track = Track(1, "person", 0.8, past[-1].box, step / 2, 0.0, past)
        view = View(t_us, 0, (track,) if step < seconds * 2 else ())
        keeper.saw(view, 1_700_000_000_000_000_000 + t_us * 1000)
    keeper.flush()
    return tracklog.paths(folder, camera)[0]


def test_tune_prints_alarms_a_day(tmp_path, capsys, folder_with_camera):
    file = folder_with_camera(RULES % "sensitivity = 2")
    path = track_log(tmp_path / "state" / "tracks")
    for words in ([], ["--log", str(path)], ["--camera", "yard", "--days", "0"]):
        assert cli.main(["tune", "--config", str(file), *words]) == 0
        told = capsys.readouterr().out.splitlines()
        assert told[0].startswith("rests on 0.9 minutes that were looked at, 2023-11-14 22:13:20")
        rows = [line.split() for line in told]
        assert ["rule", "kind", "present", "1", "2", "3", "4", "5", "sets"] in rows
        day = next(row for row in rows if row[0] == "stays")
        assert day[:5] == ["stays", "loiter", "0.0", "0.0", "0.0"]
        assert float(day[5]) > 1000
        assert day[8:] == ["dwell_s", "60"]
        assert told[-1].startswith("less than a day")


def test_tune_without_a_log_says_how_to_get_one(capsys, folder_with_camera):
    assert cli.main(["tune", "--config", str(folder_with_camera())]) == 78
    told = capsys.readouterr().err
    assert "no track log of yard" in told
    assert "detector.tracklog_days" in told


def test_analyse_replays_a_log(tmp_path, capsys, folder_with_camera):
    file, path = folder_with_camera(RULES % "dwell_s = 20.0"), track_log(tmp_path)
    assert cli.main(["analyse", str(path), "--config", str(file), "--jsonl"]) == 0
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert [event["state"] for event in events] == ["open", "closed"]
    assert events[0]["start_utc_ms"] == 1_700_000_020_000
    assert cli.main(["analyse", str(path), "--config", str(file)]) == 0
    assert capsys.readouterr().out.startswith("2023-11-14 22:13:40.000  loiter")


def test_analyse_tells_what_another_configuration_changes(tmp_path, capsys, folder_with_camera):
    path = track_log(tmp_path)
    first = folder_with_camera(RULES % "dwell_s = 20.0")
    second = folder_with_camera(RULES % "dwell_s = 30.0", name="later.toml")
    third = folder_with_camera(RULES % "dwell_s = 90.0", name="never.toml")
    words = ["analyse", str(path), "--config", str(first), "--against"]
    assert cli.main([*words, str(second)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("~ 2023-11-14 22:13:40.000")
    assert told[1].startswith("  2023-11-14 22:13:50.000")
    assert told[-1].startswith("0 the same, 1 at other times")
    assert cli.main([*words, str(third)]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("- 2023-11-14 22:13:40.000")
    assert cli.main([*words, str(first)]) == 0
    assert capsys.readouterr().out.startswith("1 the same, 0 at other times")


@pytest.mark.parametrize(
    "words",
    [
        ["{yard}", "{other}"],
        ["{yard}", "x.mp4"],
        ["a.mp4", "b.mp4"],
        ["gone.jsonl.zst"],
        ["{junk}"],
        ["a.mp4", "--against", "{toml}"],
    ],
)
def test_what_is_no_log_of_one_camera_is_refused(tmp_path, capsys, folder_with_camera, words):
    (tmp_path / "junk.jsonl.zst").write_bytes(b"junk")
    file = folder_with_camera()
    named = {
        "yard": track_log(tmp_path),
        "other": track_log(tmp_path, "other"),
        "junk": tmp_path / "junk.jsonl.zst",
        "toml": file,
    }
    words = [word.format(**named) for word in words]
    assert cli.main(["analyse", *words, "--config", str(file)]) == 78
    assert "allowed" in capsys.readouterr().err


def test_an_unknown_camera_is_refused_with_the_known(tmp_path, capsys, folder_with_camera):
    words = ["--config", str(folder_with_camera()), "--camera", "nobody"]
    assert cli.main(["analyse", str(track_log(tmp_path)), *words]) == 78
    assert "no camera 'nobody'; allowed: yard" in capsys.readouterr().err


# A folder of recordings.


PLAZA = Path(__file__).parents[1] / "firmware_sim" / "media" / "plaza.mp4"


@pytest.mark.video
def test_analyse_makes_a_page_of_a_folder(tmp_path, capsys, folder_with_camera):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(PLAZA.read_bytes())
    (folder / "b.mp4").write_bytes(b"no video")
    file = folder_with_camera(RULES % "dwell_s = 2.0")
    words = ["analyse", str(folder), "--config", str(file), "--html", str(out), "--every", "10"]
    for _ in range(2):  # the second replaces the first
        assert cli.main(words) == 0
        told = capsys.readouterr()
        assert "1 of 2 files read to their end" in told.out
        assert "b.mp4" in told.err
        text = (out / "index.html").read_text()
        events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
        assert {item["event"]["kind"] for item in events} == {"loiter"}
        assert text.count("<article") == 1 + 4 + len(events)
    log = tracklog.paths(out / "tracks", "yard")
    assert cli.main(["tune", "--config", str(file), "--log", *map(str, log)]) == 0
    assert "rests on 0.7 minutes" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["{in}"],
        ["{in}", "--html", "{out}", "--every", "-1"],
        ["{in}", "{in}", "--html", "x"],
        ["{in}", "--html", "{out}"],
        ["a.mp4", "--html", "{out}"],
    ],
)
def test_a_folder_that_cannot_be_reviewed_is_refused(tmp_path, capsys, folder_with_camera, words):
    (tmp_path / "in").mkdir()
    named = {"in": tmp_path / "in", "out": tmp_path / "out"}
    words = [word.format(**named) for word in words]
    assert cli.main(["analyse", *words, "--config", str(folder_with_camera())]) == 78
    assert "allowed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def folder_with_camera(tmp_path):
    """Give a maker of configurations: one camera with more keys."""
    from agent.evidence.keys import DeviceKey

    DeviceKey.load_or_create(tmp_path / "receiver.key")

    def make(more: str = "", name: str = "box.toml", **keys: str) -> Path:
        lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
        path = tmp_path / name
        path.write_text(
            f'device = "d1"\nsite = "s1"\nrole = "camera"\nstate_dir = "{tmp_path}/state"\n'
            f'[broker]\nhost = "127.0.0.1"\n'
            f'[delivery]\nreceiver_key_path = "{tmp_path}/receiver.pub"\n'
            f'[[cameras]]\nid = "yard"\n{lines}\n'
            f'[cameras.main]\ndriver = "rtsp"\nurl = "rtsp://127.0.0.1:1/x"\n{more}'
        )
        return path

    return make
