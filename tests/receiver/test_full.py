"""A receiver without room says so, signs for nothing it could not store, and takes all later."""

import os
import resource
import shutil
import subprocess

import pytest

from agent.receiver.archive import Full
from agent.receiver.index import contents
from tests.receiver.rig import Desk, Device, Rig, chunks


@pytest.fixture
def device(tmp_path):
    return Device(tmp_path)


def test_room_that_is_promised_to_one_transfer_is_not_promised_to_another(tmp_path, device):
    (first, first_signed), (second, second_signed) = (
        device.clip(seed, contents={"clip-1.mp4": bytes([seed]) * 60_000_000}) for seed in (1, 2)
    )
    keep_bytes = shutil.disk_usage(tmp_path).free - 90_000_000
    desk = Desk(tmp_path, keep_free_bytes=max(0, keep_bytes))
    desk.files.offer(device.offer(first, first_signed), device.key.public)
    with pytest.raises(Full, match="needed: 60000000"):
        desk.files.offer(device.offer(second, second_signed), device.key.public)
    desk.clock.advance(3601)
    answer = desk.files.offer(device.offer(second, second_signed), device.key.public)
    assert answer.part == "need"
    desk.close()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 6 MiB for the receiver's store."""
    store = tmp_path / "centre"
    store.mkdir()
    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("needs root, to mount a small tmpfs")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "outpost-test", str(store)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    yield store
    subprocess.run(["umount", "-l", str(store)], check=True)


def test_a_disk_that_fills_up_is_told_and_the_rest_comes_when_there_is_room(small_disk, tmp_path):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2_000_000))
    rig = Rig(tmp_path, keep_free_bytes=0, full_retry_s=7)
    try:
        content = os.urandom(2_000_000)
        files, signed = rig.device.clip(contents={"clip-1.mp4": content})
        offer = rig.device.offer(files, signed)
        root = f"file/{offer['fid']}"
        rig.send(f"{root}/offer", offer)
        assert "full" not in rig.answers("need")[-1]
        with ballast.open("ab", buffering=0) as stream:
            fill(stream)
        for at, part in chunks(content, 65_536):
            rig.send(f"{root}/{at}", part)
        told = [need for need in rig.answers("need") if need.get("full")]
        assert [need["retry_after_s"] for need in told] == [7]
        rig.send(f"{root}/offer", offer)
        rig.quiet()
        assert rig.answers("receipt") == []
        ballast.unlink()
        rig.transfer(offer, content)
        (receipt,) = rig.answers("receipt")
        assert receipt["sha256"] == offer["sha256"]
        assert rig.receiver.is_busy is False
        assert len(contents(rig.store_dir)["files"]) == 1
    finally:
        rig.close()


def fill(stream):
    """Write until nothing more fits."""
    for size in (65_536, 4096):
        try:
            while True:
                stream.write(bytes(size))
        except OSError:
            pass


def test_a_file_that_may_not_grow_is_a_full_disk_too(tmp_path):
    rig = Rig(tmp_path)
    content = os.urandom(3_000_000)
    files, signed = rig.device.clip(contents={"clip-1.mp4": content})
    offer = rig.device.offer(files, signed)
    rig.send(f"file/{offer['fid']}/offer", offer)
    rig.quiet()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
    try:
        for at, part in chunks(content, 65_536):
            rig.send(f"file/{offer['fid']}/{at}", part)
        assert rig.answers("need")[-1]["full"] is True
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    rig.transfer(offer, content)
    assert len(rig.answers("receipt")) == 1
    rig.close()
