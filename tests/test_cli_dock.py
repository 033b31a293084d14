"""`outpost dock` as a technician uses it: plugging, mistakes, stopping half-way."""

import json
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import cv2
import pytest

from agent import cli
from agent.core import config
from agent.device import status
from agent.docking import tongues
from drivers import usb_dock
from firmware_sim.usb_tree import UsbThing, UsbTree
from tests.docking.dockside import Camera, Dockside
from tests.docking.test_screen import COPYING, SAFE

CAMERA = UsbThing("4255:0001", ("020201", "0a0000"), ttys=("ttyACM0",), product="Cam 7")
KEYBOARD = UsbThing("046d:c31c", ("030101",))
CONTROLLER = "pci-0000:00:14.0"


class Learning:
    """The command, and what it says line by line."""

    def __init__(self, tree, *slots):
        words = [sys.executable, "-m", "agent", "dock", "learn", *slots, "--sys", str(tree.root)]
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def says(self) -> str:
        return self.process.stderr.readline().strip()

    def end(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=30)
        return self.process.returncode, out


@pytest.fixture
def tree(tmp_path):
    return UsbTree(tmp_path / "sys")


def test_one_slot_after_the_other_is_learnt(tree, tmp_path) -> None:
    tree.plug("1-1", UsbThing("1a40:0201", ("090000",), kind="09"))
    tree.plug("1-1.4", CAMERA)  # hangs there already: which slot that is, nobody has said
    learning = Learning(tree, "1", "2")
    assert learning.says() == "Plug a camera into slot 1."
    tree.plug("1-1.1", CAMERA)
    assert learning.says() == f"Slot 1: 4255:0001 Cam 7 on {CONTROLLER}-usbv2-0:1.1"
    assert learning.says() == "Plug a camera into slot 2."

    tree.plug("1-1.2", KEYBOARD)
    assert learning.says() == "device 046d:c31c is a keyboard or mouse: not a camera"
    tree.pull("1-1.2")
    tree.pull("1-1.1")
    tree.plug("1-1.1", CAMERA)
    assert learning.says() == "this port is slot 1 already"
    tree.plug("1-1.2", CAMERA)
    assert learning.says() == f"Slot 2: 4255:0001 Cam 7 on {CONTROLLER}-usbv2-0:1.2"

    code, printed = learning.end()
    assert code == 0
    hardware = tomllib.loads(printed)["dock"]["hardware"]
    assert hardware == {
        "driver": "usb_dock",
        "slots": [
            {"name": n, "ports": [f"{CONTROLLER}-usbv{v}-0:1.{n}" for v in (2, 3)]} for n in "12"
        ],
    }
    file = tmp_path / "hardware.toml"
    file.write_text(printed.replace("[dock.hardware]\n", "").replace("dock.hardware.", ""))
    file.write_text(file.read_text().replace('driver = "usb_dock"\n', ""))
    assert len(config.load(file, usb_dock.Config, lambda _: {}).slots) == 2


def test_half_learnt_is_printed_too(tree) -> None:
    learning = Learning(tree, "left", "right")
    assert learning.says() == "Plug a camera into slot left."
    tree.plug("1-3", CAMERA)
    assert learning.says().startswith("Slot left: ")
    assert learning.says() == "Plug a camera into slot right."
    learning.process.send_signal(signal.SIGINT)
    assert learning.says() == "Stopped: 1 of 2 slots learnt."
    code, printed = learning.end()
    assert code == 1
    assert [slot["name"] for slot in tomllib.loads(printed)["dock"]["hardware"]["slots"]] == [
        "left"
    ]


@pytest.mark.parametrize("slots", [["1", "1"], ["../1"], ["Slot 1"]])
def test_slots_have_names_of_their_own(slots, capsys) -> None:
    assert cli.main(["dock", "learn", *slots]) == 78
    assert "each once" in capsys.readouterr().err


@pytest.fixture
def dock_file(tmp_path):
    file = tmp_path / "dock.toml"
    text = (Path(__file__).parents[1] / "configs" / "dock.toml").read_text()
    file.write_text(text.replace("/var/lib/outpost", str(tmp_path / "state")))
    return file


def running(folder, *slots):
    """Give a lock and a status file as a running dock has them."""
    folder.mkdir(exist_ok=True)
    document = {"device": "dock-0001", "link": "connected", "slots": list(slots), "utc_ms": 1}
    (folder / "status.json").write_text(json.dumps(document))
    return status.alone(folder)


def test_the_slots_are_watched_once_in_a_pipe_and_as_a_table(dock_file, tmp_path, capsys):
    assert cli.main(["dock", "watch", "--once", "--config", str(dock_file)]) == 1
    assert "does not run" in capsys.readouterr().out
    with running(tmp_path / "state", SAFE, COPYING | {"slot": "2"}):
        assert cli.main(["dock", "watch", "--once", "--config", str(dock_file)]) == 0
        shown = capsys.readouterr().out
        assert "Ready" in shown
        assert "4 min left" in shown
        watch = [sys.executable, "-m", "agent", "dock", "watch", "--config", str(dock_file)]
        watching = subprocess.Popen(watch, stdout=subprocess.PIPE, text=True)
        assert watching.stdout.readline() == (
            "slot 1: Ready, bc0001, A. Weber, 12/12 files, 960/960 MB, safe in dock\n"
        )
        assert watching.stdout.readline().startswith("slot 2: Busy")
        running(tmp_path / "state", SAFE | {"footage": "at_centre"}, COPYING | {"slot": "2"})
        assert watching.stdout.readline().endswith("at the centre\n")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(30) == 0
        watching.stdout.close()


def test_a_box_beside_cameras_has_no_slots(dock_file, capsys):
    camera = Path(__file__).parents[1] / "configs" / "camera.toml"
    assert cli.main(["dock", "watch", "--config", str(camera)]) == 78
    assert "allowed for this command: 'dock'" in capsys.readouterr().err


@pytest.fixture
def docked(tmp_path):
    """Give the configuration of a dock in which a camera was docked, and the camera."""
    side = Dockside(tmp_path)
    camera = Camera(tmp_path, "BC0001")
    camera.film("MOV_0001.mp4", 200_000)
    camera.plug(side.slots["1"])
    side.rest()
    side.close()
    file = tmp_path / "dock.toml"
    text = (Path(__file__).parents[1] / "configs" / "dock.toml").read_text()
    file.write_text(
        text.replace("/var/lib/outpost", str(side.state_dir)).replace("dock-0001", "dock-1")
    )
    return file


def test_an_officer_gets_a_slip_that_can_be_scanned_and_checked(docked, tmp_path, capsys):
    words = ["--config", str(docked)]
    assert cli.main(["dock", "slip", "bc0001", *words]) == 0
    *paper, scanned = capsys.readouterr().out.splitlines()
    assert "SAFE IN DOCK" in paper
    assert cli.main(["dock", "slip", "bc0001", "--language", "ru", *words]) == 0
    assert tongues.text("ru", "safe_in_dock").upper() in capsys.readouterr().out
    assert cli.main(["dock", "slip", "--check", scanned, *words]) == 0
    assert capsys.readouterr().out == "true; now: safe in the dock, not yet at the centre\n"
    assert (
        cli.main(["dock", "slip", "--check", scanned.replace(" 1 dock ", " 2 dock "), *words]) == 1
    )
    assert capsys.readouterr().out == "it says 2 files; the list has 1\n"
    for wrong in (["nobody"], [], ["bc0001", "--check", scanned], ["--check", "hello"]):
        assert cli.main(["dock", "slip", *wrong, *words]) == 78
    assert "allowed" in capsys.readouterr().err


def seen(path, scale):
    picture = cv2.resize(cv2.imread(str(path)), None, fx=scale, fy=scale)
    return cv2.QRCodeDetector().detectAndDecode(cv2.GaussianBlur(picture, (3, 3), 0))[0]


def test_the_code_of_a_slip_is_drawn(docked, tmp_path, capsys):
    pytest.importorskip("segno", reason="segno draws QR codes")
    words = ["dock", "slip", "bc0001", "--config", str(docked), "--qr"]
    assert cli.main([*words, str(tmp_path / "slip.svg")]) == 0
    assert "<svg" in (tmp_path / "slip.svg").read_text()
    assert cli.main([*words, str(tmp_path / "slip.png")]) == 0
    scanned = capsys.readouterr().out.splitlines()[-1]
    # This reader overlooks a code now and then, at one size or another.
    assert {seen(tmp_path / "slip.png", scale) for scale in (1, 0.75, 0.6, 0.5)} - {""} == {scanned}
    assert cli.main([*words, str(tmp_path / "slip.pdf")]) == 78
    assert cli.main([*words, str(tmp_path / "no" / "slip.svg")]) == 78


def test_a_report_as_text_json_and_csv(docked, capsys):
    words = ["report", "dock", "--config", str(docked)]
    assert cli.main([*words, "--hours", "1"]) == 0
    shown = capsys.readouterr().out
    assert "Cameras not docked for 1 h: none\n" in shown, "it hangs there still"
    assert "Footage that waits:\ncamera" in shown
    assert cli.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["for_receipt_files"] for row in found["waiting"]] == [1]
    assert cli.main([*words, "--csv"]) == 0
    assert capsys.readouterr().out.startswith(
        "about,camera,officer,code,files,mb,since_utc,what\r\n"
    )
    assert cli.main([*words, "--hours", "-1"]) == 78
    assert cli.main([*words, "--set", "state_dir=/nowhere"]) == 1


def test_the_slots_stand_in_the_status_as_a_table(docked, tmp_path, capsys):
    with running(tmp_path / "state", SAFE, COPYING | {"slot": "2"}):
        assert cli.main(["status", "--config", str(docked)]) == 0
        shown = capsys.readouterr().out
        heads, first, second = shown.splitlines()[-3:]
        assert heads.split()[:5] == ["slot", "camera", "officer", "now", "files"]
        assert "Ready" in first
        assert "240/960" in second
        assert cli.main(["status", "--json", "--config", str(docked)]) == 0
        assert json.loads(capsys.readouterr().out)["slots"][0]["footage"] == "in_dock"
