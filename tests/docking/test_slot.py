"""A slot from docking to taking, as an officer and a technician would try it."""

import pytest

from agent.evidence import verify
from tests.docking.dockside import Camera, Dockside


@pytest.fixture
def side(tmp_path):
    made = Dockside(tmp_path)
    yield made
    made.close()


@pytest.fixture
def camera(tmp_path):
    made = Camera(tmp_path, "BC0001")
    made.film("DCIM/100MEDIA/MOV_0001.mp4", 200_000)
    made.film("DCIM/100MEDIA/MOV_0002.mp4", 5_000_000)
    return made


def test_a_card_is_copied_signed_for_and_wiped(side, camera):
    camera.plug(side.slots["1"])
    side.rest()
    assert side.state() == ("uploading", "")
    assert sorted(side.sealed()) == sorted(data for _, data in camera.ever)
    assert set(camera.files()) == {name for name, _ in camera.ever}, "nothing goes unsigned"
    side.sign()
    side.rest()
    assert side.state() == ("ready", "")
    assert camera.files() == {}
    assert {row["there"] for row in side.footage().values()} == {"wiped"}
    assert len(side.custody("footage.wiped")) == 2
    report = verify.verify(side.state_dir / "footage", side.key)
    assert report.ok, report.text()
    assert report.checked == 2
    camera.pull()
    side.turn()
    assert side.state() == ("empty", "")
