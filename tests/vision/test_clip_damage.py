"""Rows in which the disk has changed a byte: the footage is sealed all the same."""

from pathlib import Path

import pytest

from agent.core.store import Store
from tests.vision.recording import CAMERA
from tests.vision.test_clip import Box

pytestmark = pytest.mark.video


@pytest.fixture
def box(store: Store, tmp_path: Path) -> Box:
    return Box(store, tmp_path)


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        ("UPDATE clip SET track_path = 'rubbish'", {"model": "ssd@0", "rule": "in"}),
        ("UPDATE clip SET track_path = '7'", {"model": "ssd@0", "rule": "in"}),
        ("UPDATE segment SET sha256 = 'g' || substr(sha256, 2)", {"model": "ssd@0", "rule": "in"}),
        ("UPDATE event SET body = replace(body, ':', ';')", {"model": "", "rule": "in"}),
    ],
)
def test_an_event_of_which_the_disk_changed_a_byte_gets_its_clip(box: Box, damage, kept) -> None:
    box.desk.record(150)
    clip_id = box.want(2, 4)
    box.store.write(lambda connection: connection.execute(damage).rowcount)
    box.step()
    assert box.clip(clip_id)["state"] == "sealed"
    box.check(clip_id)
    told = box.manifest(clip_id)
    assert {name: told[name] for name in kept} == kept
    assert (told["kind"], told["camera"]) == ("zone_enter", CAMERA)
    assert box.numbers(clip_id) == list(range(20, 40))
