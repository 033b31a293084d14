"""Room on the dock's disk: what goes, in which order, and what never does."""

import pytest

from agent.docking.config import KeepConfig
from agent.docking.keeper import Keeper
from tests.docking.dockside import Camera, Dockside


@pytest.fixture
def side(tmp_path):
    made = Dockside(tmp_path)
    yield made
    made.close()


def keeper(side, **settings):
    config = KeepConfig(**({"days": 7.0, "max_gb": 0.001} | settings))
    return Keeper(config, side.state_dir, side.store, side.clock, side.kit.note_custody)


def docked(side, folder, serial, sizes, *, is_signed=True):
    camera = Camera(folder, serial)
    for number, size in enumerate(sizes):
        camera.film(f"MOV_{number:04}.mp4", size)
    camera.plug(side.slots["1"])
    side.rest()
    if is_signed:
        side.sign()
        side.rest()
    camera.pull()
    side.turn()
    side.clock.advance(60)
    return camera


def test_the_oldest_go_until_the_share_holds(side, tmp_path):
    docked(side, tmp_path, "BC0001", [600_000])
    docked(side, tmp_path, "BC0002", [600_000])
    docked(side, tmp_path, "BC0003", [600_000])
    assert keeper(side).tidy() == 0, "not before its days are over"
    side.clock.advance(8 * 86_400)
    assert keeper(side).tidy() == 2
    kept = side.rows("SELECT camera FROM footage WHERE here != 'deleted'")
    assert kept == [("bc0003",)]
    assert len(side.custody("footage.deleted")) == 2
    assert len(list((side.state_dir / "footage").iterdir())) == 1
    assert keeper(side).tidy() == 0


def test_without_a_receipt_nothing_goes_however_full_it_is(side, tmp_path):
    docked(side, tmp_path, "BC0001", [900_000, 900_000], is_signed=False)
    side.clock.advance(3650 * 86_400)
    assert keeper(side).tidy() == 0
    assert len(side.sealed()) == 2


def test_what_is_still_on_its_camera_or_held_stays(side, tmp_path):
    other = Dockside(tmp_path / "kept", wipe={"enabled": False})
    docked(other, tmp_path, "BC0001", [1_500_000])
    other.clock.advance(8 * 86_400)
    assert keeper(other).tidy() == 0
    other.close()
    docked(side, tmp_path, "BC0002", [1_500_000])
    side.clock.advance(8 * 86_400)
    side.store.write(
        lambda connection: connection.execute(
            "INSERT INTO hold (id, camera, start_utc_ns, end_utc_ns, reason, created_utc_ns)"
            " VALUES ('a', 'bc0002', 0, 1, 'court', 0)"
        )
    )
    assert keeper(side).tidy() == 0
    side.store.write(lambda connection: connection.execute("DELETE FROM hold"))
    assert keeper(side).tidy() == 1


def test_what_a_kill_has_left_is_swept(side, tmp_path):
    docked(side, tmp_path, "BC0001", [1000])
    side.store.write(lambda connection: connection.execute("UPDATE footage SET here = 'deleted'"))
    keeper(side).sweep()
    assert side.sealed() == []
