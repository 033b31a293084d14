"""The command `outpost` as a technician types it: answers, exit codes, and every mistake named."""

import copy
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent import app, cli
from agent.core.clock import RealClock
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.evidence.keys import DeviceKey

ROOT = Path(__file__).parent.parent
CAMERA_TOML = ROOT / "configs" / "camera.toml"
PLAZA = ROOT / "firmware_sim" / "media" / "plaza.mp4"
WRONG_TYPE = {"an": ["unexpected", "table"]}


def toml(value: Any) -> str:
    """Write a value as inline TOML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value)


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Give the path of every single value and of every table."""
    if path:
        yield path
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))


def named(path: tuple[str | int, ...]) -> str:
    """Give a path as messages write it."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def good() -> dict[str, Any]:
    """Give the example configuration as a document."""
    return tomllib.loads(CAMERA_TOML.read_text())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with the files that the configuration names."""
    DeviceKey.load_or_create(tmp_path / "receiver.key")
    (tmp_path / "camera.password").write_text("secret-word\n")
    return tmp_path


def write(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write a configuration file that names the folder's files."""
    text = "\n".join(f"{key} = {toml(value)}" for key, value in document.items())
    text = text.replace("/etc/outpost/", f"{folder}/").replace(
        "/var/lib/outpost", f"{folder}/state"
    )
    path = folder / "box.toml"
    path.write_text(text)
    return path


def check(path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Run `outpost check` and give its code and its complaints."""
    code = cli.main(["check", "--config", str(path), *words])
    return code, capsys.readouterr().err


def change(document: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """Give the document with one value replaced."""
    changed = copy.deepcopy(document)
    target: Any = changed
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = value
    return changed


def test_the_example_is_good(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["check", "--config", str(write(folder, good())), "--json"])
    values = json.loads(capsys.readouterr().out)
    assert code == 0
    assert values["cameras.0.main.kind"] == "rtsp"
    assert values["cameras.0.motion.heartbeat_s"] == 2.0


@pytest.mark.parametrize("path", [item for item in leaves(good()) if not isinstance(item[-1], int)])
def test_each_key_of_a_wrong_type_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], path: tuple[str | int, ...]
) -> None:
    wrong: Any = WRONG_TYPE
    if isinstance(app_value(path), Mapping):
        wrong = "not a table"
    file = write(folder, change(good(), path, wrong))
    code, complaints = check(file, capsys)
    assert code == 78
    assert str(file) in complaints
    assert named(path) in complaints


@pytest.mark.parametrize("path", [item for item in leaves(good()) if not isinstance(item[-1], int)])
def test_each_misspelt_key_is_told_with_the_nearest(
    folder: Path, capsys: pytest.CaptureFixture[str], path: tuple[str | int, ...]
) -> None:
    document = good()
    target: Any = document
    for part in path[:-1]:
        target = target[part]
    key = str(path[-1])
    target[f"{key}x"] = target.pop(key)
    code, complaints = check(write(folder, document), capsys)
    assert code == 78
    if key in ("driver", "kind"):  # they choose the table's shape: without them nothing is known
        assert f"{named(path)}: missing" in complaints
    else:
        assert f"{named((*path[:-1], key + 'x'))}: unknown key; did you mean {key!r}?" in complaints


def app_value(path: tuple[str | int, ...]) -> Any:
    """Give a value of the example."""
    found: Any = good()
    for part in path:
        found = found[part]
    return found


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("device",), "Cam 1", "device"),
        (("site",), "", "site"),
        (("role",), "toaster", "allowed: camera, dock"),
        (("broker", "port"), 0, "from 1 to 65535"),
        (("broker", "port"), 70000, "from 1 to 65535"),
        (("recording", "segment_s"), 0.1, "recording.segment_s"),
        (("recording", "segment_s"), float("inf"), "recording.segment_s"),
        (("detector", "min_score"), 1.5, "detector.min_score"),
        (("cameras", 0, "id"), "a/b", "cameras[0].id"),
        (("cameras", 0, "main", "driver"), "rtps", "did you mean 'rtsp'?"),
        (("cameras", 0, "main", "url"), "http://x/", "url"),
        (("cameras", 0, "main", "url"), "rtsp://u:hidden-word@x/main", "user"),
        (("cameras", 0, "zones", 0, "points"), [[0.1, 0.1], [0.2, 0.2]], "3 to 64"),
        (("cameras", 0, "zones", 0, "points"), [[0, 0], [1, 1], [1, 0], [0, 1]], "simple polygon"),
        (("cameras", 0, "zones", 0, "points"), [[0, 0], [1, 0], [1, 1.5]], "from 0 to 1"),
        (("cameras", 0, "rules", 0, "zone"), "nowhere", "no zone 'nowhere'"),
        (("cameras", 0, "rules", 1, "line"), "nowhere", "no line 'nowhere'"),
        (("cameras", 0, "rules", 0, "kind"), "zone_entre", "did you mean 'zone_enter'?"),
        (("cameras", 0, "rules", 0, "labels"), ["cat"], "allowed: person, vehicle, bicycle"),
        (("cameras", 0, "rules", 1, "name"), "person-on-crossing", "each name once"),
    ],
)
def test_wrong_values_are_told_with_what_is_allowed(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    path: tuple[str | int, ...],
    value: Any,
    said: str,
) -> None:
    text = toml(value) if value != float("inf") else "inf"
    file = write(folder, change(good(), path, "@@"))
    file.write_text(file.read_text().replace('"@@"', text))
    code, complaints = check(file, capsys)
    assert code == 78
    assert said in complaints
    assert "hidden-word" not in complaints


def test_all_mistakes_are_told_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = change(good(), ("device",), "X")
    document = change(document, ("broker", "port"), "1883")
    document = change(document, ("cameras", 0, "rules", 0, "pre_s"), -1)
    document["colour"] = "red"
    code, complaints = check(write(folder, document), capsys)
    assert code == 78
    assert len(complaints.strip().splitlines()) == 4
    for key in ("device", "broker.port", "cameras[0].rules[0].pre_s", "colour"):
        assert f": {key}: " in complaints


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"device = ", "not TOML"),
        (b"device = 'a'\ndevice = 'b'\n", "not TOML"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"", "device: missing"),
        (b"cameras = 3", "cameras: 3 is not a list"),
    ],
)
def test_files_that_are_no_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, said: str
) -> None:
    file = tmp_path / "box.toml"
    file.write_bytes(content)
    code, complaints = check(file, capsys)
    assert code == 78
    assert said in complaints
    assert str(file) in complaints


def test_missing_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, complaints = check(tmp_path / "none.toml", capsys)
    assert code == 78
    assert "none.toml: no such file" in complaints


@pytest.mark.parametrize("name", ["receiver.pub", "camera.password"])
def test_files_that_the_configuration_names_must_be_there(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    file = write(folder, good())
    (folder / name).unlink()
    code, complaints = check(file, capsys)
    assert code == 78
    assert f"{folder / name}: No such file" in complaints


def test_a_key_that_is_no_key(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(folder, good())
    (folder / "receiver.pub").write_text("rubbish")
    code, complaints = check(file, capsys)
    assert code == 78
    assert "receiver.pub" in complaints
    assert "Ed25519" in complaints


def test_single_values_can_be_set(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(folder, good())
    code = cli.main(
        [
            "check",
            "--config",
            str(file),
            "--json",
            "--set",
            "broker.port=1999",
            "--set",
            'cameras.0.id="gate"',
            "--set",
            "cameras.0.rules.1.direction=a_to_b",
        ]
    )
    values = json.loads(capsys.readouterr().out)
    assert code == 0
    assert values["broker.port"] == 1999
    assert values["cameras.0.id"] == "gate"
    assert values["cameras.0.rules.1.direction"] == "a_to_b"


@pytest.mark.parametrize("text", ["broker", "broker.port.x=1", "cameras.9.id=a", "cameras.x.id=a"])
def test_set_that_names_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    code, complaints = check(write(folder, good()), capsys, "--set", text)
    assert code == 78
    assert "--set" in complaints or "port" in complaints


def test_usage_mistakes_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["fly"], ["inspect", "nothing", "--config", "x"], ["verify", "x"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(words)
        assert stopped.value.code == 2
    assert "usage: outpost" in capsys.readouterr().err


def test_status_before_the_first_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["status", "--config", str(write(folder, good()))])
    assert code == 1
    assert "outpost.db" in capsys.readouterr().err


def test_status_says_that_the_database_was_mended(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(folder, good())
    path = app.load_config(file, check_files=False).state_dir / app.DATABASE
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"no database at all" * 1000)
    store = Store(path, DEVICE_MIGRATIONS, RealClock())
    store.open()
    store.close()
    assert cli.main(["status", "--json", "--config", str(file)]) == 0
    told = json.loads(capsys.readouterr().out)["database"]
    assert told.startswith("was damaged and mended; set aside: outpost.db.bad-")


def test_keys_are_made_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(write(folder, good()))
    assert cli.main(["key", "device", "--config", file]) == 0
    first = Path(capsys.readouterr().out.strip())
    content = first.read_bytes()
    assert cli.main(["key", "device", "--config", file]) == 0
    assert Path(capsys.readouterr().out.strip()).read_bytes() == content
    assert first.with_suffix(".key").stat().st_mode & 0o777 == 0o600
    assert cli.main(["key", "device"]) == 78


def test_configuration_page_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--page"]) == 0
    assert capsys.readouterr().out == app.config_page()


@pytest.mark.video
def test_detect_gives_a_line_for_each_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["detect", str(PLAZA), "--every", "40", "--jsonl"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [item["frame"] for item in found] == list(range(40, 401, 40))
    assert all(item["pts_s"] == pytest.approx((item["frame"] - 1) / 10) for item in found)
    people = [one for item in found for one in item["detections"] if one["label"] == "person"]
    assert len(people) > 20
    for one in people:
        x, y, w, h = one["box_px"]
        assert one["score"] >= 0.4
        assert -5 <= x <= 768
        assert -5 <= y <= 576
        assert w < h


@pytest.mark.video
def test_detect_for_a_person_to_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["detect", str(PLAZA), "--every", "200", "--min-score", "0.4"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("frame    200")
    assert "person" in first


@pytest.mark.video
def test_analyse_gives_events(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["analyse", str(PLAZA), "--config", str(write(folder, good())), "--jsonl"]
    assert cli.main(words) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    closed = [item for item in found if item["event"]["state"] == "closed"]
    assert {item["event"]["kind"] for item in closed} == {"zone_enter", "line_cross"}
    assert all(0 <= item["start_pts_s"] <= item["end_pts_s"] <= 40 for item in closed)
    opened = [item["event"]["event_id"] for item in found if item["event"]["state"] == "open"]
    assert sorted(opened) == sorted(item["event"]["event_id"] for item in closed)


@pytest.mark.video
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["detect", "nothing.mp4"], 1, "nothing.mp4: no such file"),
        (["detect", str(CAMERA_TOML)], 1, "camera.toml"),
        (["detect", "rtsp://127.0.0.1:1/main"], 1, "rtsp://127.0.0.1:1/main"),
        (["detect", str(PLAZA), "--every", "0"], 78, "--every"),
        (["detect", str(PLAZA), "--min-score", "2"], 78, "--min-score"),
        (["detect", str(PLAZA), "--model", "/nowhere.json"], 1, "/nowhere.json"),
    ],
)
def test_detect_with_bad_input(
    capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    assert cli.main(words) == code
    assert said in capsys.readouterr().err


@pytest.mark.video
def test_analyse_of_an_unknown_camera(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["analyse", str(PLAZA), "--config", str(write(folder, good())), "--camera", "attic"]
    assert cli.main(words) == 78
    assert "allowed: plaza-west" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_traceback(folder: Path) -> None:
    process = subprocess.run(
        f"{sys.executable} -m agent check --page | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in process.stderr


def test_loading_the_agent_names_every_role() -> None:
    assert set(app.ROLES) == {"camera", "dock"}
    assert app.load_config(CAMERA_TOML, check_files=False).device == "cam-0001"
