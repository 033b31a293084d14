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
BRIEFLY = ("--seconds", "1.5")
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
    code, said = outpost("test", camera.url, *login(password), *BRIEFLY)
    assert code == 0, said
    name, head, row, *rest = said.splitlines()
    assert name == camera.url
    assert head.split("  ")[0] == "stream"
    assert re.match(
        r"main +h264 +320x180 +(9|10)\.\d +1\.0 +\d+ +-?0\.\d +none +tcp +good$", row
    ), row
    assert rest == []
    assert len(row) <= 80  # a phone lies on its side


def said_by(camera: SimCamera, password: Path, **settings: object) -> tuple[int, str]:
    """Give what `test` says of a camera with a fault, which is gone afterwards."""
    camera.do("set", **settings)
    try:
        return outpost("test", camera.url, *login(password), *BRIEFLY)
    finally:
        camera.do("reset")


def test_what_is_wrong_is_told_with_its_cure(camera: SimCamera, password: Path):
    code, said = outpost("test", camera.url.replace("/main", "/mian"), *login(password))
    assert (code, "its manual has the path" in said) == (1, True), said
    code, said = outpost("test", "rtsp://127.0.0.1:9/main", *login(password))
    assert (code, "check the port, switch RTSP" in said) == (1, True), said
    code, said = outpost("test", "v4l2:/dev/v4l/by-id/none", *login(password))
    assert (code, "plug it in" in said) == (1, True), said
    code, said = said_by(camera, password, transports="udp")
    assert (code, 'write transport = "auto"' in said) == (1, True), said
    camera.do("clock", offset_s=-3600)
    code, said = outpost("test", camera.url, *login(password), *BRIEFLY)
    camera.do("reset")
    assert (code, "better: its clock is -3600" in said) == (0, True), said


def test_a_login_that_is_turned_down_is_tried_once(camera: SimCamera, tmp_path: Path):
    wrong = tmp_path / "wrong"
    wrong.write_text("not it\n")
    config = tmp_path / "box.toml"
    shutil.copy(ROOT / "configs" / "camera.toml", config)
    words = []
    for stream in ("main", "sub"):
        url = camera.url.replace("/main", f"/{stream}")
        words += ["--set", f"cameras.0.{stream}.url={url}"]
        words += ["--set", f"cameras.0.{stream}.password_path={wrong}"]
    before = camera.do("stats")["failed_logins"]
    code, said = outpost("test", "--config", config, *words)
    assert code == 1
    assert "turned down" in said
    assert "do not try many times, cameras lock the account" in said
    assert "not tried: the login was turned down at main" in said
    assert camera.do("stats")["failed_logins"] == before + 1
    camera.do("unlock")


def test_many_cameras_behind_one_login_are_tried_once(
    camera: SimCamera, password: Path, config: Path
):
    """A recorder of sixteen cameras would lock the account at the first test."""
    password.write_text("not it\n")
    text = config.read_text().split("[[cameras]]")[0]
    for number in range(6):
        text += f'[[cameras]]\nid = "c{number}"\n[cameras.main]\ndriver = "rtsp"\n'
        text += f'url = "{camera.url}"\nuser = "{USER}"\npassword_path = "{password}"\n'
    config.write_text(text)
    before = camera.do("stats")["failed_logins"]
    code, said = outpost("test", "--config", config)
    assert code == 1
    assert said.count("not tried: the login was turned down at c0") == 5
    assert camera.do("stats")["failed_logins"] == before + 1
    camera.do("unlock")


@pytest.mark.slow
def test_all_cameras_are_shown_in_one_table(camera: SimCamera, password: Path, config: Path):
    text = config.read_text().replace("/etc/outpost/camera.password", str(password))
    text = text.replace("rtsp://127.0.0.1:8554/main", camera.url).replace(
        'user = "outpost"', f'user = "{USER}"'
    )
    text = text.replace("rtsp://127.0.0.1:8554/sub", camera.url.replace("/main", "/sub"))
    dead = '\n[[cameras]]\nid = "gate"\n[cameras.main]\ndriver = "rtsp"\nurl = "rtsp://127.0.0.1:9/x"\n'
    config.write_text(text + dead)
    code, said = outpost("test", "--config", config, *BRIEFLY)
    rows = [line.split() for line in said.splitlines()[:4]]
    assert code == 1
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("camera", "stream", "result"),
        ("plaza-west", "main", "good"),
        ("plaza-west", "sub", "good"),
        ("gate", "main", "FAILS"),
    ]
    assert "\ngate main:\n  why: rtsp://127.0.0.1:9/x: Connection refused\n  do:  " in said
    code, said = outpost("test", "plaza-west", "--config", config, "--json", *BRIEFLY)
    main, sub = json.loads(said)
    assert code == 0
    assert (main["camera"], main["stream"], main["codec"], main["size"], main["transport"]) == (
        *("plaza-west", "main"),
        *("h264", "320x180", "tcp"),
    )
    assert (sub["key_every_s"], sub["is_good"], sub["fault"]) == (1.0, True, "")


def coded(path: Path, pictures: int, key_every: int, *, has_sound: bool = False) -> Path:
    with av.open(str(path), "w") as container:
        options = {"x264-params": f"keyint={key_every}:scenecut=0"}
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        stream.gop_size = key_every
        voice = container.add_stream("pcm_s16le", rate=8000) if has_sound else None
        for number in range(pictures):
            container.mux(stream.encode(footage._picture(number, 320)))
            if voice is not None:
                silence = av.AudioFrame("s16", voice.layout.name, 800)
                silence.sample_rate, silence.pts = 8000, number * 800
                container.mux(voice.encode(silence))
        container.mux(stream.encode(None))
        if voice is not None:
            container.mux(voice.encode(None))
    return path


@pytest.mark.slow
def test_key_frames_that_do_not_come_are_told(tmp_path: Path):
    code, said = outpost("test", coded(tmp_path / "rare.mp4", 50, 999), *BRIEFLY)
    assert code == 1
    assert "no second key frame in 5 s" in said
    assert "set a key frame (I-frame) every 1 to 2 s" in said


def test_rare_key_frames_are_waited_for_and_sound_is_named(tmp_path: Path):
    code, said = outpost("test", coded(tmp_path / "slow.mov", 120, 60, has_sound=True), "--json")
    (row,) = json.loads(said)
    assert code == 0
    assert (row["key_every_s"], row["sound"]) == (6.0, "pcm_s16le")
    assert "key frames only every 6 s" in row["advice"][0]


def test_a_camera_is_tried_and_added_and_the_file_keeps_what_it_was(
    camera: SimCamera, password: Path, config: Path
):
    before = config.read_text()
    config.chmod(0o604)
    link = config.with_name("link.toml")
    link.symlink_to(config)
    code, said = outpost(
        *("add", "--config", link, "--id", "gate", "--url", camera.url),
        *("--sub-url", camera.url.replace("/main", "/sub"), *login(password)),
    )
    assert code == 0, said
    assert "Next: outpost cameras snapshot gate" in said
    assert f"the service must read {password}: group outpost" in said
    after = config.read_text()
    assert after.startswith(before.rstrip("\n"))
    assert config.stat().st_mode & 0o777 == 0o604
    assert link.is_symlink()
    loaded = app.load_config(config, check_files=False)
    added = loaded.cameras[-1]
    assert (added.id, added.main.kind, added.main.settings.url) == ("gate", "rtsp", camera.url)
    assert added.sub is not None
    assert added.main.settings.password_path == password
    assert {path.name for path in config.parent.iterdir()} == {
        *("box.toml", "camera.password", "link.toml")
    }


def test_what_cannot_be_added_is_told_before_a_camera_is_tried(
    camera: SimCamera, password: Path, config: Path
):
    before, sessions = config.read_text(), camera.do("stats")["sessions"]
    words = ("--url", camera.url, *login(password))
    for text, name, told in (
        (before, "plaza-west", "there is a camera 'plaza-west'"),
        (before, "BAD id", "id: 'BAD id'"),
        (before + "oops\n", "gate", "not TOML"),
        ("cameras = 3\n", "gate", "not TOML"),
        ('cameras = [{id = "a"}]\n', "gate", "not TOML"),
        (before + "colour = 1\n", "gate", "unknown key"),
    ):
        config.write_text(text)
        code, said = outpost("add", "--config", config, "--id", name, *words)
        assert (code, told in said) == (78, True), said
        assert f"{config}" in said
        assert ".new" not in said
        assert config.read_text() == text
    assert camera.do("stats")["sessions"] == sessions


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
        (("discover", "--timeout", "0"), "allowed: 0.1 to 60"),
        (("test", "--seconds", "0"), "allowed: 1 to 600"),
        (("snapshot", "/nowhere", "--out", "x.jpg"), "allowed: rtsp://…"),
    ],
)
def test_wrong_words_are_named(words: tuple[str, ...], told: str):
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
        code, said = outpost("discover", "--interface", "lo", "--timeout", "1")
        address = f"onvif://127.0.0.1:{device.port}"
        assert code == 0
        assert re.search(rf"^{address} +Sim Camera +SIM-1 +user and password$", said, re.MULTILINE)
        assert device.do("stats")["failed_logins"] == 0  # asking is not guessing
        words = ("add", "--config", config, "--url", address, *login(password))
        code, said = outpost(*words, "--id", "gate")
        assert code == 0, said
        assert len([line for line in said.splitlines() if line.endswith("good")]) == 2
        target = tmp_path / "still.jpg"
        code, _ = outpost("snapshot", address, *login(password), "--out", target)
        assert code == 0
        assert target.read_bytes().startswith(b"\xff\xd8")
        device.do("set", fault="one_profile")
        code, said = outpost(*words, "--id", "yard")
        assert (code, "no small stream" in said) == (0, True), said
    gate, yard = app.load_config(config, check_files=False).cameras[-2:]
    assert (gate.main.kind, gate.sub.kind if gate.sub else "") == ("onvif", "onvif")
    assert gate.main.settings.port == device.port
    assert yard.sub is None


def test_a_camera_without_a_login_is_shown_as_such(camera: SimCamera):
    with SimOnvif("--discovery", "127.0.0.1", main=camera.url, user="") as device:
        code, said = outpost("discover", "--interface", "127.0.0.1", "--timeout", "1", "--json")
    (row,) = [row for row in json.loads(said) if row["address"].endswith(f":{device.port}")]
    assert (code, row["login"]) == (0, "none")


def test_privacy_masks_are_black_in_a_snapshot(
    camera: SimCamera, password: Path, config: Path, tmp_path: Path
):
    """Even though the camera would give a picture of its own: that one is not masked."""
    still = str(footage.numbered(30))
    with SimOnvif("--snapshot", still, main=camera.url) as device:
        address = f"onvif://127.0.0.1:{device.port}"
        words = ("--config", config, "--id", "gate", "--url", address, *login(password))
        assert outpost("add", *words)[0] == 0
        mask = '\n[[cameras.masks]]\nname = "yard"\npoints = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]\n'
        config.write_text(config.read_text() + mask)
        target = tmp_path / "gate.jpg"
        code, said = outpost("snapshot", "gate", "--config", config, "--out", target)
    assert code == 0, said
    with av.open(str(target)) as picture:
        luma = next(picture.decode(video=0)).to_ndarray(format="gray")
    assert luma[:, :150].mean() < 1  # footage is never that dark
    assert luma[:, 170:].mean() > 3


def test_nobody_on_the_network_is_told():
    code, said = outpost("discover", "--interface", "127.0.0.1", "--timeout", "0.3")
    assert (code, "no camera answered" in said) == (1, True)
