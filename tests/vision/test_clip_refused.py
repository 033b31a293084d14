"""A clip for which there was no room: its picture is handed over, and why there is no video."""

import pytest

from agent.core import wire
from tests.vision.test_clip import Box, box

__all__ = ["box"]
pytestmark = pytest.mark.video


def refuse(box: Box, clip_id: str) -> None:
    query = "UPDATE clip SET refused = 'no room' WHERE id = ?"
    box.store.write(lambda connection: connection.execute(query, (clip_id,)).rowcount)


def test_a_refused_clip_hands_over_its_picture_and_says_why_there_is_no_video(box: Box) -> None:
    box.desk.record(60)
    (box.folder / "spool").mkdir(exist_ok=True)
    (box.folder / "spool" / "one.jpg").write_bytes(b"the picture")
    clip_id = box.want(2, 4, snapshot="spool/one.jpg")
    refuse(box, clip_id)
    box.step()
    clip = box.clip(clip_id)
    assert (clip["state"], clip["missing_ms"], clip["reason"]) == (
        "sealed",
        2000,
        "refused: no room",
    )
    names = [item["name"] for item in box.manifest(clip_id)["files"]]
    assert names == ["snapshot.jpg", "path.json"]
    (told,) = box.told
    wire.check("event", told.body)
    assert told.body["clip_refused"] == "no room"


def test_a_refused_clip_without_a_picture_is_refused_for_good(box: Box) -> None:
    box.desk.record(60)
    clip_id = box.want(2, 4)
    refuse(box, clip_id)
    box.step()
    clip = box.clip(clip_id)
    assert (clip["state"], clip["missing_ms"], clip["reason"]) == ("refused", 2000, "no room")
