"""`outpost cameras`: what a technician sees at the roadside."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from agent import app
from tests import footage
from tests.simcamera import PASSWORD, USER, SimCamera
from tests.simonvif import SimOnvif

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.video


@pytest.fixture(scope="module")
def camera() -> Iterator[SimCamera]:
    with SimCamera(footage.numbered(60)) as started:
        yield started


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "camera.password"
    path.write_text(PASSWORD + "\n")
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "box.toml"
    shutil.copy(ROOT / "configs" / "camera.toml", path)
    return path


def outpost(*words: object) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "agent", "cameras", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = done.stdout + done.stderr
    assert PASSWORD not in said
    assert "Traceback" not in said
    return done.returncode, said


def login(password: Path) -> tuple[object, ...]:
    return "--user", USER, "--password-file", password


def test_a_good_camera_is_shown_in_one_row(camera: SimCamera, password: Path):
    code, said = outpost("test", camera.url, *login(password))
    assert code == 0
    head, row = said.splitlines()[1:3]
    assert head.split() == [
        *("stream", "codec", "size", "rate", "key_every_s", "kbit_per_s", "clock_off_s", "result")
    ]
    assert re.match(r"main +h264 +320x180 +(9|10)\.\d/s +1\.0 +\d+ +[+-]\d\.\d +good$", row), row


def test_what_is_wrong_is_told_with_its_cure(camera: SimCamera, password: Path, tmp_path: Path):
    wrong = tmp_path / "wrong"
    wrong.write_text("not it\n")
    code, said = outpost("test", camera.url, "--user", USER, "--password-file", wrong)
    assert code == 1
    assert "turned down" in said
    assert "check user and password; cameras lock the account" in said
    camera.do("unlock")
    code, said = outpost("test", camera.url.replace("/main", "/mian"), *login(password))
    assert (code, "check the path" in said) == (1, True)
    code, said = outpost("test", "rtsp://127.0.0.1:9/main", *login(password))
    assert (code, "check power, cable and address" in said) == (1, True)
    camera.do("clock", offset_s=-3600)
    code, said = outpost("test", camera.url, *login(password))
    camera.do("reset")
    assert (code, "set the time (NTP) at the camera" in said) == (0, True)
    camera.do("set", transports="udp")
    code, said = outpost("test", camera.url, *login(password))
    camera.do("reset")
    assert (code, 'set transport = "auto"' in said) == (1, True)


def test_rare_key_frames_are_told(tmp_path: Path):
    path = tmp_path / "rare.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=10, options={"x264-params": "keyint=999:scenecut=0"}
        )
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        stream.gop_size = 999
        for number in range(150):
            container.mux(stream.encode(footage._picture(number, 320)))
        container.mux(stream.encode(None))
    code, said = outpost("test", path)
    assert code == 1
    assert "no second key frame in" in said
    assert "set a key frame (I-frame) every 1 to 2 s" in said


def test_a_camera_is_tried_and_added_and_the_file_keeps_its_comments(
    camera: SimCamera, password: Path, config: Path
):
    before = config.read_text()
    code, said = outpost(
        *("add", "--config", config, "--id", "gate", "--url", camera.url),
        *("--sub-url", camera.url.replace("/main", "/sub"), *login(password)),
    )
    assert code == 0, said
    assert "Next: zones and rules, then `outpost check`." in said
    after = config.read_text()
    assert after.startswith(before.rstrip("\n"))
    loaded = app.load_config(config, check_files=False)
    added = loaded.cameras[-1]
    assert (added.id, added.main.kind, added.main.settings.url) == ("gate", "rtsp", camera.url)
    assert added.sub is not None
    assert added.main.settings.password_path == password
    again, said = outpost(
        *("add", "--config", config, "--id", "gate", "--url", camera.url, *login(password))
    )
    assert (again, "there is a camera 'gate'" in said) == (78, True)
    assert config.read_text() == after
    assert {path.name for path in config.parent.iterdir()} == {"box.toml", "camera.password"}
    code, said = outpost("test", "gate", "--config", config, "--set", "cameras.0.id=other")
    assert code == 78  # the example's own password file is not here: named, not tried
    assert "password_path" in said


def test_one_that_does_not_answer_is_not_added_unless_it_must(config: Path):
    before = config.read_text()
    words = ("add", "--config", config, "--id", "gate", "--url", "rtsp://127.0.0.1:9/main")
    code, said = outpost(*words)
    assert (code, "left as it was; --force" in said) == (1, True)
    assert config.read_text() == before
    code, said = outpost(*words, "--force")
    assert (code, "added" in said) == (0, True)
    assert app.load_config(config, check_files=False).cameras[-1].id == "gate"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("test",), "nothing to try; allowed: an address, or --config FILE"),
        (("test", "ftp://x"), "allowed: rtsp://…"),
        (("test", "onvif://user:hunter2@cam"), "allowed: --user and --password-file"),
        (("test", "onvif://cam:99999"), "allowed: onvif://host[:port]"),
        (("add", "--id", "x", "--url", "rtsp://cam/x"), "--config is missing"),
        (("add", "--id", "BAD id", "--url", "rtsp://127.0.0.1:9/x", "--force"), "id: 'BAD id'"),
        (("discover", "--timeout", "0"), "allowed: 0.1 to 60"),
        (("snapshot", "/nowhere", "--out", "x.jpg"), "allowed: rtsp://…"),
    ],
)
def test_wrong_words_are_named(words: tuple[str, ...], told: str, config: Path):
    if words[0] == "add" and "BAD id" in words:
        words = (*words, "--config", str(config))
    code, said = outpost(*words)
    assert (code, told in said) == (78, True), said
    assert "hunter2" not in said


def test_a_snapshot_is_a_picture(camera: SimCamera, password: Path, tmp_path: Path):
    target = tmp_path / "gate.jpg"
    code, said = outpost("snapshot", camera.url, *login(password), "--out", target)
    assert (code, said.strip()) == (0, str(target))
    with av.open(str(target)) as picture:
        frame = next(picture.decode(video=0))
    assert (frame.width, frame.height) == (320, 180)
    code, said = outpost("snapshot", camera.url, *login(password), "--out", tmp_path / "no" / "x")
    assert (code, "allowed: a file to write" in said) == (78, True)


def test_an_onvif_camera_is_discovered_tried_and_added(
    camera: SimCamera, password: Path, config: Path, tmp_path: Path
):
    still = str(footage.numbered(30))
    with SimOnvif("--discovery", "127.0.0.1", "--snapshot", still, main=camera.url) as device:
        code, said = outpost("discover", "--interface", "127.0.0.1", "--timeout", "1", "--json")
        assert code == 0
        address = f"onvif://127.0.0.1:{device.port}"
        assert {"add it with": address, "name": "Sim Camera", "model": "SIM-1"} in json.loads(said)
        code, said = outpost(
            *("add", "--config", config, "--id", "gate", "--url", address, *login(password))
        )
        assert code == 0, said
        assert len([line for line in said.splitlines() if line.endswith("good")]) == 2
        target = tmp_path / "still.jpg"
        code, _ = outpost("snapshot", address, *login(password), "--out", target)
        assert code == 0
        assert target.read_bytes().startswith(b"\xff\xd8")
    added = app.load_config(config, check_files=False).cameras[-1]
    assert (added.main.kind, added.sub.kind if added.sub else "") == ("onvif", "onvif")
    assert added.main.settings.port == device.port


def test_nobody_on_the_network_is_told():
    code, said = outpost("discover", "--interface", "127.0.0.1", "--timeout", "0.3")
    assert (code, "no camera answered" in said) == (1, True)
