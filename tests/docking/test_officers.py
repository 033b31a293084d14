"""Who carries which camera: by the list, by the camera, by a badge."""

import pytest

from agent.core.clock import SimClock
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.docking.config import Badge, DockConfig, FleetCamera, OfficersConfig
from agent.docking.officers import Officers

FLEET = (FleetCamera("BC0001", "0421"), FleetCamera("BC0002"))


@pytest.fixture
def clock():
    return SimClock()


@pytest.fixture
def made(tmp_path, clock):
    store = Store(tmp_path / "outpost.db", DEVICE_MIGRATIONS, clock)
    store.open()
    noted = []

    def make(**settings):
        config = DockConfig(hardware=None, fleet=FLEET, officers=OfficersConfig(**settings))
        note = lambda _connection, *entry: noted.append(entry)  # noqa: E731
        found = Officers(config, store, clock, note)
        found.noted = noted
        return found

    yield make
    store.close()


def test_the_site_s_list_comes_before_what_the_camera_says(made):
    officers = made()
    assert officers.carried("bc0001", "9999") == ("0421", "assigned")
    assert officers.carried("bc0002", "0388") == ("0388", "camera")
    assert officers.carried("bc0002", "") == ("", "unknown")
    assert officers.is_ours("bc0002")
    assert not officers.is_ours("bc0009")


def test_a_badge_calls_to_the_fullest_camera_that_is_ready(made, clock):
    officers = made(mode="pool")
    assert officers.call("0421", {"1": 80, "2": 95, "3": -1}) == "2"
    assert officers.called("2") == "0421"
    assert officers.call("0388", {"1": 80, "2": 95}) == "1", "the other one is spoken for"
    assert officers.call("0107", {"1": 80, "2": 95}) == ""
    assert officers.call("0421", {"1": 80, "2": 95}) == "2", "asked again, the same"
    clock.advance(61)
    assert officers.called("2") == ""
    assert officers.call("0107", {"1": 80, "2": 95}) == "2"


def test_who_takes_a_camera_carried_it_when_it_comes_back(made):
    officers = made(mode="pool")
    officers.call("0388", {"1": 90})
    assert officers.taken("1", "bc0001") == "0388"
    assert officers.noted == [("camera.issued", "bc0001", {"officer": "0388", "slot": "1"})]
    assert officers.carried("bc0001", "9999") == ("0388", "badge")
    assert officers.taken("2", "bc0001") == "", "taken without a badge"
    assert officers.carried("bc0001", "") == ("", "unknown"), "it is not his who had it before"


def test_a_badge_says_whose_it_is_by_the_list_or_by_itself(made):
    assert made().holder("0421") == "0421"
    known = made(badges=(Badge("AA17", "0421"),))
    assert known.holder("AA17") == "0421"
    assert known.holder("BB18") == ""
