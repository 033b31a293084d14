"""A receiver's key is changed in place or handed over; a kill in between leaves a working one."""

import json
from pathlib import Path

import pytest

from agent import cli
from agent.core.clock import RealClock
from agent.core.errors import ConfigError
from agent.evidence.keys import DeviceKey, PublicKey
from agent.receiver import rotate
from agent.receiver.identity import ROTATIONS, read_rotations

SITE = "plaza"


@pytest.fixture
def folder(tmp_path):
    DeviceKey.load_or_create(tmp_path / "old" / rotate.KEY)
    return tmp_path / "old"


def key(folder):
    return DeviceKey.load_or_create(folder / rotate.KEY)


def test_in_place_the_old_key_stays_beside_the_new_one(folder):
    first = key(folder)
    printed = rotate.in_place(folder, SITE, RealClock())
    second = key(folder)
    assert PublicKey.load(printed) == second.public != first.public
    assert PublicKey.load(folder / "receiver-1.pub") == first.public
    assert key(folder).keyid == second.keyid
    rotate.in_place(folder, SITE, RealClock())
    assert PublicKey.load(folder / "receiver-2.pub") == second.public
    assert len(read_rotations(folder, key(folder), SITE)) == 2


@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_a_kill_at_any_step_leaves_a_key_that_fits_its_chain(step, folder):
    first = key(folder)
    new = DeviceKey.load_or_create(folder / rotate.NEXT)
    if step >= 1:
        (folder / ROTATIONS).write_bytes(rotate._grown(folder, SITE, new.public, RealClock()))
    if step >= 2:
        (folder / rotate.KEY).rename(folder / "receiver-1.key")
    if step >= 3:
        (folder / "receiver.pub").rename(folder / "receiver-1.pub")
    rotate.finish(folder)
    rotate.finish(folder)
    wanted = first if step == 0 else new
    assert key(folder).keyid == wanted.keyid
    assert len(read_rotations(folder, key(folder), SITE)) == (step > 0)


def test_handed_over_to_another_receiver(folder, tmp_path, capsys):
    other = DeviceKey.load_or_create(tmp_path / "new" / rotate.KEY)
    argv = ["key", "rotate-receiver", "--store", str(folder), "--site", SITE]
    assert cli.main([*argv, "--to", str(tmp_path / "new" / "receiver.pub")]) == 0
    chain = capsys.readouterr().out.strip()
    assert key(folder).keyid != other.keyid, "this one stays what it is"
    (tmp_path / "new" / ROTATIONS).write_bytes(Path(chain).read_bytes())
    assert len(read_rotations(tmp_path / "new", other, SITE)) == 1
    assert cli.main(argv) == 0
    assert len(json.loads((folder / ROTATIONS).read_bytes())["rotations"]) == 1


def test_what_does_not_fit_is_named(folder, tmp_path, capsys):
    rotate.in_place(folder, SITE, RealClock())
    with pytest.raises(ConfigError, match="of site 'plaza'"):
        read_rotations(folder, key(folder), "other")
    stranger = DeviceKey.load_or_create(tmp_path / "x.key")
    with pytest.raises(ConfigError, match="ends at"):
        read_rotations(folder, stranger, SITE)
    with pytest.raises(ConfigError, match="is the key already"):
        rotate.hand_over(folder, SITE, key(folder).public, tmp_path / "out", RealClock())
    with pytest.raises(ConfigError, match="no such file"):
        rotate.in_place(tmp_path / "empty", SITE, RealClock())
    (folder / ROTATIONS).write_bytes(b"{")
    with pytest.raises(ConfigError, match="not JSON"):
        read_rotations(folder, key(folder), SITE)
    assert cli.main(["key", "rotate-receiver", "--store", str(folder)]) == 78
    assert "--site is missing" in capsys.readouterr().err
