"""Sealed folders without rows, as a damaged database leaves them, are taken up and sent again."""

import json
import shutil
from pathlib import Path

import pytest

from agent.core.store import Store
from agent.vision.adopt import adopt
from agent.vision.clip import Custodian
from tests.vision.recording import rows
from tests.vision.test_clip import Box

pytestmark = pytest.mark.video


@pytest.fixture
def box(store: Store, tmp_path: Path) -> Box:
    """A box with one sealed clip."""
    box = Box(store, tmp_path)
    box.desk.record(100)
    box.sealed = box.want(2.0, 4.0)
    box.step()
    assert box.clip(box.sealed)["state"] == "sealed"
    return box


def custodian(box: Box) -> Custodian:
    return Custodian("cam-1", "yard", box.folder, box.store, box.key, box.clock, dict)


def forget(box: Box, *tables: str) -> None:
    for table in tables:
        box.store.write(lambda c, table=table: c.execute(f"DELETE FROM {table}").rowcount)


def files(box: Box) -> list[tuple]:
    query = "SELECT clip_id, name, size_bytes, sha256, leaf_root, path, state FROM transfer"
    return sorted(tuple(row.values()) for row in rows(box.store, query))


def test_rows_that_are_there_are_left_alone(box):
    before = files(box)
    assert adopt(custodian(box)) == 0
    assert files(box) == before


@pytest.mark.parametrize("lost", [("clip", "transfer"), ("clip",), ("transfer",)])
def test_a_folder_gets_its_rows_back_and_is_noted_in_the_custody_log(box, lost):
    before, clip = files(box), box.clip(box.sealed)
    forget(box, *lost)
    assert adopt(custodian(box)) == 1
    assert files(box) == before
    found = box.clip(box.sealed)
    same = ("id", "event_id", "camera", "start_utc_ns", "end_utc_ns", "state", "path")
    assert [found[name] for name in same] == [clip[name] for name in same]
    log = rows(box.store, "SELECT * FROM custody WHERE kind = 'clip.adopted'")
    assert [entry["subject"] for entry in log] == [box.sealed]
    assert "clip-1.mp4" in json.loads(log[0]["detail"])["files"]
    assert adopt(custodian(box)) == 0, "once"


def test_a_receipted_clip_without_its_transfers_is_offered_again(box):
    box.store.write(lambda c: c.execute("UPDATE clip SET state = 'receipted'").rowcount)
    forget(box, "transfer")
    assert adopt(custodian(box)) == 1
    assert box.clip(box.sealed)["state"] == "sealed"


def test_a_clip_row_that_is_lost_alone_is_as_far_as_its_files_are(box):
    box.store.write(lambda c: c.execute("UPDATE transfer SET state = 'receipted'").rowcount)
    before = files(box)
    forget(box, "clip")
    assert adopt(custodian(box)) == 1
    assert box.clip(box.sealed)["state"] == "receipted"
    assert files(box) == before


CHANGES = {
    "leaf_root": "UPDATE transfer SET leaf_root = 'g' || substr(leaf_root, 2) WHERE name LIKE 'c%'",
    "sha256": "UPDATE transfer SET sha256 = 'g' || substr(sha256, 2) WHERE name LIKE 'clip%'",
    "fid": "UPDATE transfer SET fid = '!' || substr(fid, 2) WHERE name LIKE 'clip%'",
    "clip_id": "UPDATE transfer SET clip_id = 'f' || substr(clip_id, 2) WHERE name LIKE 'clip%'",
    "path": "UPDATE transfer SET path = 'clipz' || substr(path, 6) WHERE name LIKE 'clip%'",
    "name": "UPDATE transfer SET name = 'clip-1.mp5' WHERE name LIKE 'clip%'",
    "manifest": "UPDATE transfer SET manifest = replace(manifest, 'A', 'B'), state = 'refused'",
    "events": "UPDATE transfer SET event_ids = '[\"x\"]', state = 'refused', is_final = 1",
    "clip row": "UPDATE clip SET id = 'f' || substr(id, 2)",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_byte_that_the_disk_changed_in_a_row_is_set_right_by_the_folder(box, change):
    before, clip = files(box), box.clip(box.sealed)
    papers = rows(box.store, "SELECT manifest, event_ids FROM transfer LIMIT 1")
    box.store.write(lambda c: c.execute(CHANGES[change]).rowcount)
    assert adopt(custodian(box)) == 1
    assert files(box) == before
    assert box.clip(box.sealed) == clip
    assert rows(box.store, "SELECT DISTINCT manifest, event_ids FROM transfer") == papers
    assert rows(box.store, "SELECT fid FROM transfer WHERE fid GLOB '*[^0-9a-f]*'") == []
    assert adopt(custodian(box)) == 0, "once"


def test_a_lost_row_of_a_delivered_clip_is_found_after_a_salvage(box):
    box.store.write(lambda c: c.execute("UPDATE transfer SET state = 'receipted'").rowcount)
    box.store.write(lambda c: c.execute("UPDATE clip SET state = 'receipted'").rowcount)
    lost = "DELETE FROM transfer WHERE name = 'clip-1.mp4'"
    box.store.write(lambda c: c.execute(lost).rowcount)
    assert adopt(custodian(box)) == 0, "no start reads every manifest"
    assert adopt(custodian(box), is_thorough=True) == 1
    states = rows(box.store, "SELECT name, state FROM transfer ORDER BY state DESC")
    assert states[0] == {"name": "clip-1.mp4", "state": "waiting"}
    assert {row["state"] for row in states[1:]} == {"receipted"}
    assert box.clip(box.sealed)["state"] == "sealed"


def test_a_wanted_clip_whose_id_is_none_gets_another_and_is_made(box):
    box.want(5.0, 6.0)
    broken = "UPDATE clip SET id = ':' || substr(id, 2) WHERE state = 'wanted'"
    box.store.write(lambda c: c.execute(broken).rowcount)
    adopt(custodian(box))
    box.step()
    found = rows(box.store, "SELECT id, state FROM clip")
    assert [row["state"] for row in found] == ["sealed", "sealed"]
    assert all(len(row["id"]) == 32 and int(row["id"], 16) for row in found)


def test_a_wanted_clip_whose_event_is_lost_is_made_all_the_same(box):
    clip_id = box.want(5.0, 6.0)
    forget(box, "event")
    box.step()
    assert box.clip(clip_id)["state"] == "sealed"
    assert box.manifest(clip_id)["kind"] == "unknown"


def test_what_is_not_a_sealed_folder_of_ours_stays_and_is_told(box, caplog):
    forget(box, "clip", "transfer")
    folder = box.folder / "clips"
    shutil.copytree(folder / box.sealed, folder / ("f" * 32))  # under another id
    (folder / "stray").mkdir()
    signed = json.loads((folder / box.sealed / "manifest.json").read_text())
    signed["payload"] = signed["payload"][:-8] + "AAAAAAA="
    (folder / box.sealed / "manifest.json").write_text(json.dumps(signed))
    assert adopt(custodian(box)) == 0
    assert files(box) == []
    assert caplog.text.count("stays where it is") == 2
    assert len(list(folder.iterdir())) == 3


def test_an_event_that_has_another_clip_by_now_keeps_that_one(box, caplog):
    event_id = box.clip(box.sealed)["event_id"]
    forget(box, "clip", "transfer")
    other = box.want(5.0, 6.0)
    query = "UPDATE clip SET event_id = ? WHERE id = ?"
    box.store.write(lambda c: c.execute(query, (event_id, other)).rowcount)
    assert adopt(custodian(box)) == 0
    assert files(box) == []
    assert "its event has another clip" in caplog.text
