"""The ONVIF driver and discovery against a device that is not ours: `ipycam`, over a real cable.

It runs in a network of its own, from a virtual environment of its own under the cache folder.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from agent import app
from tests import footage
from tests.drivers import network_pair
from tests.drivers.network_pair import CAMERA, NetworkPair

ROOT = Path(__file__).parents[2]
VERSION = "1.3.0"
ONVIF_PORT, RTSP_PORT = 18080, 18554
ADDRESS = f"onvif://{CAMERA}:{ONVIF_PORT}"
USER, PASSWORD = "viewer", "pass-1Z?"
INSTALL_S, START_S, ASK_S = 180, 30, 60
SETTINGS = {
    "local_ip": CAMERA,
    "onvif_port": ONVIF_PORT,
    "rtsp_port": RTSP_PORT,
    "username": USER,
    "password": PASSWORD,
    "hw_accel": "cpu",
    "main_width": 640,
    "main_height": 360,
    "main_fps": 10,
    "sub_width": 320,
    "sub_height": 180,
    "sub_fps": 10,
}
# Runs in the box's network: prints what the driver says of the camera, as JSON.
ASK = """
import json, sys
from pathlib import Path
from agent.core.clock import RealClock
from agent.core.errors import AgentError
from drivers import onvif

host, port, user, password_path = sys.argv[1:]
config = onvif.Config(host, int(port), user, Path(password_path))
device = onvif.Device(config, RealClock())
try:
    about, profiles = device.about(), device.profiles()
    told = {
        "about": [about.manufacturer, about.model],
        "skew_s": about.clock_skew_s,
        "profiles": [[one.codec, one.width_px, one.height_px] for one in profiles],
        "urls": [device.stream_url(one) for one in profiles],
    }
except AgentError as error:
    told = [type(error).__name__, str(error)]
print(json.dumps(told))
"""


def environment() -> Path:
    """Give the Python that has ipycam, installed at first use; skips if it cannot be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "outpost-tests" / f"ipycam-{VERSION}-py{sys.version_info.minor}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        install = [str(python), "-m", "pip", "install", "-q", "--no-deps", f"ipycam=={VERSION}"]
        done = subprocess.run(install, capture_output=True, timeout=INSTALL_S, check=False)
        if done.returncode:
            pytest.skip(f"ipycam cannot be installed: {done.stderr.decode().strip()[-200:]}")
        (folder / "ready").touch()
    # What it needs besides, numpy and OpenCV, is lent by the tests' own environment.
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(f"{Path(cv2.__file__).parents[1]}\n")
    return python


@pytest.fixture(scope="module")
def network() -> Iterator[NetworkPair]:
    if reason := network_pair.why_not():
        pytest.skip(reason)
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed (apt-get install ffmpeg)")
    with NetworkPair() as made:
        yield made


@pytest.fixture(scope="module")
def camera(network: NetworkPair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("ipycam")
    (folder / "settings.json").write_text(json.dumps(SETTINGS))
    program = [str(environment()), "-u", "-m", "ipycam", "--config", "settings.json"]
    words = [*program, "--source", str(footage.numbered(60))]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            network.words(network.camera_side, *words), cwd=folder, stdout=log, stderr=log
        )
    try:
        _await_streams(network, process, folder / "log")
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _await_streams(network: NetworkPair, process: subprocess.Popen, log: Path) -> None:
    """Wait until it listens on both ports; fails with what it wrote."""
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s and process.poll() is None:
        shown = subprocess.run(
            network.words(network.camera_side, "ss", "-Hltn"), capture_output=True, check=True
        ).stdout.decode()
        if f":{ONVIF_PORT} " in shown and f":{RTSP_PORT} " in shown:
            return
        time.sleep(0.3)
    process.kill()
    raise AssertionError(f"ipycam did not start: {log.read_text()[-1000:]}")


def on_the_box(network: NetworkPair, *words: str) -> tuple[int, str]:
    """Run our Python in the box's network; gives its exit code and what it wrote."""
    done = subprocess.run(
        network.words(network.box_side, sys.executable, *words),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=ASK_S,
        check=False,
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert PASSWORD not in said
    return done.returncode, said


def outpost(network: NetworkPair, *words: object) -> tuple[int, str]:
    return on_the_box(network, "-m", "agent", "cameras", *map(str, words))


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    return path


def ask(network: NetworkPair, password: Path) -> Any:
    words = ("-c", ASK, CAMERA, str(ONVIF_PORT), USER, str(password))
    code, said = on_the_box(network, *words)
    assert code == 0, said
    return json.loads(said)


def test_it_is_discovered_on_whatever_network_it_is(network: NetworkPair, camera: None):
    code, said = outpost(network, "discover", "--timeout", "2", "--json")
    (row,) = json.loads(said)
    assert (code, row["address"]) == (0, ADDRESS)
    assert row["login"] == "user and password"


def test_it_tells_its_profiles_and_addresses(network: NetworkPair, camera: None, password: Path):
    told = ask(network, password)
    assert told["about"] == ["PythonCam", "VirtualCam-1"]
    assert abs(told["skew_s"]) < 3
    assert told["profiles"] == [["H264", 640, 360], ["H264", 320, 180]]
    assert told["urls"] == [
        f"rtsp://{CAMERA}:{RTSP_PORT}/{path}" for path in ("video_main", "video_sub")
    ]


def test_it_turns_a_wrong_password_down(network: NetworkPair, camera: None, password: Path):
    password.write_text("wrong-one\n")
    kind, told = ask(network, password)
    assert kind == "AuthRefused"
    assert f"user '{USER}' turned down" in told
    assert "wrong-one" not in told


def test_it_gives_a_picture(network: NetworkPair, camera: None, password: Path):
    target = password.with_name("view.jpg")
    login = ("--user", USER, "--password-file", password)
    code, said = outpost(network, "snapshot", ADDRESS, *login, "--out", target)
    assert code == 0, said
    shown = cv2.imdecode(np.fromfile(target, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape[:2] == (180, 320)  # as its own source has it


@pytest.mark.video
@pytest.mark.slow
def test_its_streams_are_tried_and_added(network: NetworkPair, camera: None, password: Path):
    config = password.with_name("box.toml")
    shutil.copy(ROOT / "configs" / "camera.toml", config)
    login = ("--user", USER, "--password-file", password)
    code, said = outpost(
        network, "add", "--config", config, "--id", "hall", "--url", ADDRESS, *login
    )
    assert code == 0, said
    sizes = [row.split()[2] for row in said.splitlines() if row.endswith("good")]
    assert sizes == ["640x360", "320x180"]
    added = app.load_config(config, check_files=False).cameras[-1]
    assert (added.id, added.main.kind, added.main.settings.host) == ("hall", "onvif", CAMERA)
