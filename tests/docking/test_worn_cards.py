"""Cards that are worn, false or pulled out in the middle, as file systems of their own."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from firmware_sim.faultfs import unmount
from tests.docking.dockside import Dockside

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="needs root and /dev/fuse"
)
NAME = "MOV_0001.mp4"
SIZE = 9_000_000


class Card:
    """A card behind `firmware_sim.badcard`."""

    def __init__(self, folder, slots):
        self.slots = slots
        self.content = random.Random(3).randbytes(SIZE)
        (folder / "card").mkdir()
        (folder / "card" / NAME).write_bytes(self.content)
        self.mount = folder / "mount"
        self.mount.mkdir()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "firmware_sim.badcard", folder / "card", self.mount],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._process.stdout.readline() != "mounted\n":
            pytest.skip("FUSE cannot be mounted here")

    def be(self, **order):
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def plug(self, slot="1"):
        self.slots[slot].put_mounted(self.mount, {"serial": "BC0001"})

    def pull(self, slot="1"):
        self.slots[slot].take()

    def has(self, name=NAME):
        return (self.mount / name).exists()

    def close(self):
        self._process.communicate('{"end": "cut"}\n', timeout=10)
        unmount(self.mount)


@pytest.fixture
def side(tmp_path):
    made = Dockside(tmp_path)
    yield made
    made.close()


@pytest.fixture
def card(tmp_path, side):
    made = Card(tmp_path, side.slots)
    yield made
    made.close()


def test_what_cannot_be_read_is_left_out_and_mapped_and_the_rest_is_kept(side, card):
    card.be(eio=[[2_000_000, 2_100_000]])
    card.plug()
    side.rest()
    (kept,) = side.sealed()
    assert len(kept) == SIZE
    assert kept[:1_900_000] == card.content[:1_900_000]
    assert kept[2_300_000:] == card.content[2_300_000:]
    zeros = [at for at in range(0, SIZE, 65_536) if not any(kept[at : at + 65_536])]
    assert zeros, "zeros stand for what could not be read"
    assert all(1_900_000 < at < 2_200_000 for at in zeros)
    assert "partial" in side.footage()[NAME]["flags"]
    ((_, detail),) = side.custody("footage.sealed")
    spans = detail["unread"]
    assert all(any(start <= at < end for start, end in spans) for at in zeros)
    side.sign()
    side.rest()
    assert side.state() == ("quarantine", "D-11")
    assert card.has(), "never wiped: another reader may get more"


def test_a_card_that_goes_in_the_middle_goes_on_later(side, card):
    card.be(gone_after_bytes=5_000_000)
    card.plug()
    side.turn(4)
    card.pull()
    side.turn()
    assert side.state() == ("pulled", "D-18")
    (part,) = (side.state_dir / "parts").glob("*.part")
    assert part.stat().st_size > 3_000_000
    card.be()
    card.plug("2")
    side.rest()
    assert side.sealed() == [card.content]
    side.sign()
    side.rest()
    assert not card.has()


def test_a_card_that_is_dead_but_hangs_there_calls_somebody(side, card):
    card.be(gone_after_bytes=1_000_000)
    card.plug()
    side.rest()
    assert side.state() == ("attention", "D-02")


def test_a_byte_that_is_wrong_once_is_found_by_reading_twice(side, card):
    card.be(flip_once=[100])
    card.plug()
    side.rest()
    assert "unstable" in side.footage()[NAME]["flags"]
    side.sign()
    side.rest()
    assert side.state() == ("quarantine", "D-13")
    assert card.has()


def test_a_byte_that_was_wrong_and_not_found_is_found_before_the_wipe(side, card):
    """Sampled reading may miss it; all of it is read again before anything goes."""
    card.be(flip_once=[5_000_001])
    card.plug()
    side.rest()
    assert side.sealed() != [card.content]
    side.sign()
    side.rest()
    assert card.has()
    assert side.state()[0] == "quarantine"
