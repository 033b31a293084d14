"""The dock role on USB ports: real processes, real mounts by the privileged part, a sysfs tree."""

import contextlib
import hashlib
import json
import random
import re
import subprocess
import time
from pathlib import Path

import pytest

from drivers import _mounts
from firmware_sim.bodycam import BodyCam
from firmware_sim.demo import ROOT, free_port
from firmware_sim.dock_stage import DockStage
from firmware_sim.usb_slot import UsbSlot
from firmware_sim.usb_tree import UsbThing, UsbTree
from tests.drivers import machine
from tests.scenarios.test_dock_role import SETTINGS

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(bool(machine.needs_mounting()), reason=machine.needs_mounting()),
]
PORTS = {name: f"pci-0000:00:14.0-usbv2-0:1.{name}" for name in ("1", "2", "3")}


def tell() -> None:
    """Have the kernel tell of a change; where that is not allowed, the dock looks by itself."""
    with contextlib.suppress(OSError):
        Path("/sys/block/loop0/uevent").write_text("change")


class UsbStage(DockStage):
    """A dock of USB ports; the configuration is the file that the privileged part reads too."""

    def prepare(self):
        slots = "\n".join(
            f'[[dock.hardware.slots]]\nname = "{name}"\nports = ["{port}"]'
            for name, port in PORTS.items()
        )
        hardware = f"""[dock.hardware]
driver = "usb_dock"
mount_socket = "{self.folder}/mount.sock"
sys_root = "{self.folder}/sys"
dev_root = "{self.folder}/dev"
settle_s = 1.0
{slots}

[dock.link]
driver = "bodycam_serial"
timeout_s = 2.0
"""
        text = (ROOT / "configs" / "dock.toml").read_text() + "\n"
        text = re.sub(r"\[dock\.link\][^\n]*\n.*?\n\n", "", text, flags=re.DOTALL)
        text = re.sub(
            r"\n\[dock\.hardware\][^\n]*\n.*?\n\n", "\n" + hardware + "\n", text, flags=re.DOTALL
        )
        self.file = self.folder / "dock.toml"
        self.file.write_text(text)
        self.tree = UsbTree(self.folder / "sys")
        self.tree.told = tell
        (self.folder / "dev").mkdir()
        self.mounts = self.folder / "mounts"
        words = ["--config", str(self.file), "--user", "root", "--base", str(self.mounts)]
        self.unit = machine.SocketUnit(
            self.folder / "mount.sock", *words, "--sys", str(self.tree.root), "--types", "ext4"
        )

    def config(self):
        options = super().config()
        kept = [options[at : at + 2] for at in range(0, len(options), 2)]
        kept = [pair for pair in kept if not pair[1].startswith("dock.hardware")]
        return ["--config", str(self.file), *(word for pair in kept[1:] for word in pair)]

    def wait_unmounted(self, slot, limit_s=20.0):
        until_s = time.monotonic() + limit_s
        while _mounts.below(self.mounts / slot):
            assert time.monotonic() < until_s, self.log()
            time.sleep(0.1)

    def clear(self):
        super().clear()
        self.unit.close()
        for path in _mounts.below(self.mounts):
            _mounts.detach(path)


@pytest.fixture
def stage(tmp_path):
    made = UsbStage(tmp_path, "embedded", free_port())
    made.extra = dict(SETTINGS)
    made.prepare()
    try:
        made.start_all()
        yield made
    finally:
        made.clear()


def films(folder, seed, count=3):
    """Make the files of a camera; gives their hashes."""
    dice = random.Random(seed)
    (folder / "DCIM").mkdir(parents=True)
    hashes = set()
    for number in range(count):
        data = dice.randbytes(300_000)
        (folder / "DCIM" / f"MOV_{number:04}.mp4").write_bytes(data)
        hashes.add(hashlib.sha256(data).hexdigest())
    return hashes


def test_a_camera_on_usb_is_copied_across_a_pull_signed_for_and_wiped(stage, tmp_path) -> None:
    hashes = films(tmp_path / "files", seed=1, count=12)
    image = machine.ext4(tmp_path / "card.img", tmp_path / "files")
    with machine.loop(image) as card:
        camera = machine.camera(machine.disk(card))
        stage.tree.plug("1-1.2", UsbThing("046d:c31c", ("030101",)))
        stage.tree.plug("1-1.1", camera)
        stage.wait("2", "unknown")
        stage.wait("1", "copying", "verifying", "sealed", "uploading", "ready")
        stage.tree.pull("1-1.1")
        stage.wait("1", "empty", "pulled")
        stage.wait_unmounted("1")
        stage.tree.plug("1-1.3", camera)
        stage.wait("3", "ready")
        stage.clear()
        kept = {row["sha256"] for row in stage.json("inspect", "files", "--json", *stage.config())}
        assert hashes < kept
        assert not _mounts.below(stage.mounts), "an agent that stops leaves nothing mounted"
    listed = subprocess.run(
        ["debugfs", "-R", "ls -p /DCIM", str(image)], capture_output=True, text=True, check=True
    ).stdout
    assert "MOV_" not in listed, "wiped on the medium itself"


def test_a_camera_that_comes_twice_is_spoken_to_mounted_and_spoken_to_again(
    stage, tmp_path
) -> None:
    with contextlib.ExitStack() as stack:
        devices = {}

        def disk_of(files):
            if not devices:
                image = machine.ext4(tmp_path / "card.img", files, mebibytes=32)
                devices[0] = stack.enter_context(machine.loop(image))
            return machine.disk(devices[0], sectors=32 << 11)

        mounts = stage.mounts / "1"
        was_mounted = []

        def was_let_go() -> bool:
            is_mounted = bool(_mounts.below(mounts))
            if not is_mounted and was_mounted:
                was_mounted.clear()
                return True
            if is_mounted:
                was_mounted.append(True)
            return False

        slot = UsbSlot(stage.tree, "1-1.1", tmp_path / "dev", disk_of, was_let_go)
        scenario = {"serial": "BC0042", "files": 2, "clip_s": 1, "clock_offset_s": 25_200}
        camera = stack.enter_context(BodyCam(tmp_path / "camera", scenario | {"percent": 95}))
        hashes = {
            hashlib.sha256(path.read_bytes()).hexdigest() for path in camera.card.rglob("*.mp4")
        }
        camera.plug(slot)
        stage.wait("1", "ready", limit_s=60)
        assert abs(camera.utc_ns() - time.time_ns()) < 60 * 10**9, "it was seven hours off"
        camera.pull()
        stage.wait("1", "empty")
        stage.clear()
    kept = {row["sha256"] for row in stage.json("inspect", "files", "--json", *stage.config())}
    assert len(hashes) >= 2
    assert hashes < kept
    text = stage.text("inspect", "custody", "--json", "--limit", "9999", *stage.config())
    kinds = [json.loads(line).get("kind") for line in text.splitlines()]
    assert kinds.count("footage.wiped") >= len(hashes)
    assert kinds.count("camera.docked") == 1, "coming back it is the same camera"
    assert "camera.taken_early" not in kinds
