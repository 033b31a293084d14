"""The keeper: receipted clips go with a record, what must stay stays, no room is told."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core import wire
from agent.core.clock import NS_PER_S
from agent.core.store import Store
from agent.delivery.centrestore import CentreStore
from agent.vision.footage import Span
from agent.vision.hold import Word
from agent.vision.stock import take
from tests.vision.recording import mount_tmpfs, rows
from tests.vision.shelf import DAY_S, GB, HOUR_S, KEYID, Shelf
from tests.vision.test_intake import CLOSED

WORD = Word("case 7", "A. Weber")


@pytest.fixture
def shelf_of(store: Store, tmp_path: Path) -> Callable[..., Shelf]:
    return lambda **config: Shelf(store, tmp_path, **config)


@pytest.fixture
def shelf(store: Store, tmp_path: Path) -> Shelf:
    return Shelf(store, tmp_path)


def test_a_receipted_clip_goes_after_its_days_with_a_record(store: Store, shelf: Shelf) -> None:
    folder = shelf.clip("c1")
    sha256 = rows(store, "SELECT sha256 FROM transfer WHERE name = 'clip-1.mp4'")[0]["sha256"]
    shelf.clock.advance(29 * DAY_S)
    assert shelf.keeper.tidy() == 0
    shelf.clock.advance(2 * DAY_S)
    assert shelf.keeper.tidy() == 1
    assert not folder.exists()
    assert folder.parent.exists()
    assert shelf.states() == {"c1": "deleted"}
    (entry,) = shelf.log("clip.deleted")
    assert entry["subject"] == "c1"
    assert entry["files"]["clip-1.mp4"] == sha256
    assert entry["keyids"] == [KEYID]
    assert entry["rule"] == "days"
    assert "31.0 days old; kept: 30.0 days" in entry["reason"]
    assert rows(store, "SELECT * FROM garbage") == []
    assert {row["manifest"] for row in rows(store, "SELECT manifest FROM transfer")} == {""}
    assert all(row["receipt"] for row in rows(store, "SELECT receipt FROM transfer"))
    assert shelf.keeper.tidy() == 0


@pytest.mark.parametrize("state", ["sealed", "wanted", "empty", "refused"])
def test_what_has_no_receipt_never_goes(shelf: Shelf, state: str) -> None:
    folder = shelf.clip("c1", state=state)
    shelf.clock.advance(3000 * DAY_S)
    shelf.clock.advance(2 * HOUR_S)
    assert shelf.keeper.tidy() == 0
    assert folder.exists()


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE transfer SET state = 'waiting' WHERE name = 'path.json'",
        "UPDATE transfer SET receipt = NULL WHERE name = 'path.json'",
        "UPDATE transfer SET receipt = 'rubbish' WHERE name = 'path.json'",
        """UPDATE transfer SET receipt = '{"sha256":"0"}' WHERE name = 'path.json'""",
        "UPDATE transfer SET sha256 = 'other' WHERE name = 'path.json'",
        "DELETE FROM transfer",
    ],
)
def test_a_clip_whose_receipts_are_not_whole_never_goes(shelf: Shelf, spoil: str) -> None:
    folder = shelf.clip("c1")
    shelf.store.write(lambda connection: connection.execute(spoil).rowcount)
    shelf.clock.advance(100 * DAY_S)
    assert shelf.keeper.tidy() == 0
    assert folder.exists()


def test_pins_and_holds_keep_receipted_clips(shelf: Shelf) -> None:
    shelf.clip("pinned")
    shelf.clock.advance(60)
    start_ns = shelf.clock.utc_ns()
    shelf.clip("held")
    shelf.clock.advance(60)
    shelf.clip("free")
    shelf.holds.pin("pinned", WORD)
    hold_id = shelf.holds.place(Span("gate", start_ns, start_ns + NS_PER_S), WORD)
    shelf.clock.advance(40 * DAY_S)
    assert shelf.keeper.tidy() == 1
    assert shelf.states() == {"pinned": "receipted", "held": "receipted", "free": "deleted"}
    shelf.holds.unpin("pinned", WORD)
    shelf.holds.release(hold_id, WORD)
    assert shelf.keeper.tidy() == 2


def test_a_pin_that_comes_between_plan_and_deed_wins(shelf: Shelf) -> None:
    folder = shelf.clip("c1")
    shelf.clock.advance(40 * DAY_S)
    (step,) = shelf.keeper.look().steps
    shelf.holds.pin("c1", WORD)
    assert shelf.keeper._delete(step) is False
    assert folder.exists()
    assert shelf.log("clip.deleted") == []


def test_a_kill_between_row_and_files_is_made_good(store: Store, shelf: Shelf) -> None:
    folder = shelf.clip("c1")
    shelf.clock.advance(40 * DAY_S)
    (step,) = shelf.keeper.look().steps
    assert shelf.keeper._delete(step)  # killed before the files went
    assert folder.exists()
    assert shelf.loop.tidy() == 0  # the next worker that looks, here or after a start
    assert not folder.exists()
    assert rows(store, "SELECT * FROM garbage") == []


def test_a_clock_that_leapt_costs_no_clip(shelf: Shelf) -> None:
    folder = shelf.clip("c1")
    shelf.clock.step_wall(1000 * DAY_S)
    assert shelf.keeper.tidy() == 0
    shelf.clock.step_wall(-1000 * DAY_S)
    shelf.clock.advance(2 * HOUR_S)
    assert shelf.keeper.tidy() == 0
    assert folder.exists()


def test_for_room_the_oldest_receipted_go_then_the_recordings_shrink(
    store: Store, tmp_path: Path
) -> None:
    shelf = Shelf(store, tmp_path, max_gb=0.0145, recordings_min_gb=0.01, receipted_hours=1)
    for number in range(4):
        shelf.clip(f"c{number}", 1_000_000)
        shelf.clock.advance(60)
    for _ in range(100):
        shelf.segment(100_000)
        shelf.clock.advance(60)
    assert shelf.used_bytes() > 0.0145 * GB
    gone = shelf.keeper.tidy()
    assert 1 <= gone < 4
    deleted = sorted(name for name, state in shelf.states().items() if state == "deleted")
    assert deleted == [f"c{number}" for number in range(gone)]
    assert {entry["rule"] for entry in shelf.log("clip.deleted")} == {"room"}
    assert shelf.used_bytes() <= 0.0145 * GB
    assert shelf.loop.tidy() == 0  # there is room for them yet
    shelf.clip("new", 1_000_000, "sealed")
    shelf.clip("newer", 1_000_000, "sealed")
    shelf.keeper.tidy()
    assert shelf.keeper.health().state in ("short", "clips_refused", "no_room")
    assert shelf.states()["new"] == "sealed"


def test_recordings_make_way_for_unreceipted_clips_down_to_their_floor(
    store: Store, tmp_path: Path
) -> None:
    shelf = Shelf(store, tmp_path, max_gb=0.022, recordings_min_gb=0.01)
    for _ in range(180):
        shelf.segment(100_000)
        shelf.clock.advance(10)
    shelf.keeper.tidy()
    assert shelf.loop.tidy() == 0
    shelf.clip("c1", 6_000_000, "sealed")
    shelf.keeper.tidy()
    assert shelf.keeper.health().state == "short"
    assert shelf.loop.tidy() > 20
    assert shelf.used_bytes() <= 0.022 * GB
    assert len(shelf.log("segments.deleted")) == 1
    shelf.clip("c2", 60_000_000, "sealed")
    shelf.keeper.tidy()
    shelf.loop.tidy()
    left = rows(store, "SELECT sum(size_bytes) AS bytes FROM segment")[0]["bytes"]
    assert 0.0095 * GB < left <= 0.0101 * GB + 100_000
    assert shelf.states() == {"c1": "sealed", "c2": "sealed"}
    health = shelf.keeper.health()
    assert health.state == "no_room"
    assert "no video of any event; clip without a receipt: 66000" in health.detail
    figures = shelf.keeper.figures()
    assert figures["refused"] == ["info", "warning", "alarm"]
    assert figures["headroom_bytes"] == 0


@pytest.mark.parametrize(
    ("sealed_mb", "config", "severity", "is_refused"),
    [
        (76, {}, "info", False),
        (84, {}, "info", True),
        (84, {}, "warning", False),
        (84, {"low_kinds": ("zone_enter",)}, "alarm", True),
        (84, {"high_kinds": ("zone_enter",)}, "info", False),
        (88, {}, "warning", True),
        (88, {}, "alarm", False),
        (98, {}, "alarm", True),
    ],
)
def test_clips_are_refused_by_their_severity_as_room_runs_out(
    shelf_of, sealed_mb: int, config, severity: str, is_refused: bool
) -> None:
    # Of 100 MB, recordings have 10 and clips above info 10.
    shelf = shelf_of(max_gb=0.1, recordings_min_gb=0.01, **config)
    shelf.clip("c1", 16)
    shelf.store.write(
        lambda connection: (
            connection.execute(
                "UPDATE transfer SET size_bytes = ?, state = 'waiting' WHERE name = 'clip-1.mp4'",
                (sealed_mb * 1_000_000 - 2_000_000,),
            ).rowcount
        )
    )
    shelf.keeper.look()
    event = replace(CLOSED, severity=severity, kind="zone_enter")
    refusal = shelf.keeper.refusal(event)
    assert bool(refusal) is is_refused
    if refusal:
        assert refusal.startswith("no room: ")
        assert len(refusal) <= 256


def test_old_quarantine_beyond_its_share_goes_and_each_one_is_told(
    store: Store, tmp_path: Path
) -> None:
    shelf = Shelf(store, tmp_path, quarantine_max_gb=0.00001)
    paths = [shelf.put(f"quarantine/gate-{number}.mp4", 6000) for number in range(3)]
    shelf.clock.advance(6 * DAY_S)
    assert shelf.keeper.tidy() == 0  # they are kept a week at least
    shelf.clock.advance(2 * DAY_S)
    assert shelf.keeper.tidy() == 2
    assert [path.exists() for path in paths].count(True) == 1
    entries = shelf.log("quarantine.deleted")
    assert {entry["rule"] for entry in entries} == {"share"}
    assert all(len(entry["sha256"]) == 64 for entry in entries)
    assert len(shelf.told) == 2
    for message in shelf.told:
        assert (message.kind, message.body["state"]) == ("state/quarantine", "deleted")
        wire.check("state", message.body)


def test_quarantine_within_its_share_is_kept_for_ever(shelf: Shelf) -> None:
    path = shelf.put("quarantine/gate-1.mp4")
    shelf.clock.advance(2000 * DAY_S)
    assert shelf.keeper.tidy() == 0
    assert path.exists()


def test_a_hold_keeps_what_of_its_camera_lies_in_quarantine(store: Store, tmp_path: Path) -> None:
    shelf = Shelf(store, tmp_path, quarantine_max_gb=0.000001)
    gate, yard = shelf.put("quarantine/gate-1.mp4", 2000), shelf.put("quarantine/yard-1.mp4", 2000)
    now_ns = shelf.clock.utc_ns()
    shelf.holds.place(Span("gate", now_ns - NS_PER_S, now_ns), WORD)
    shelf.clock.advance(100 * DAY_S)
    assert shelf.keeper.tidy() == 1
    assert (gate.exists(), yard.exists()) == (True, False)


def test_exports_go_after_their_days_with_all_their_files(shelf: Shelf) -> None:
    for name in ("a.mp4", "b/c.json"):
        shelf.put(f"exports/copy/{name}")
    shelf.put("exports/single.zip")
    shelf.clock.advance(31 * DAY_S)
    assert shelf.keeper.tidy() == 2
    assert list((shelf.folder / "exports").iterdir()) == []
    assert [entry["files"] for entry in shelf.log("export.deleted")] == [2, 1]


def test_history_is_forgotten_once_nothing_of_it_is_here(store: Store, shelf: Shelf) -> None:
    shelf.clip("gone")
    shelf.clip("kept", state="sealed")
    shelf.clock.advance(31 * DAY_S)
    shelf.keeper.tidy()
    assert len(rows(store, "SELECT * FROM event")) == 2
    shelf.clock.advance(60 * DAY_S)
    shelf.keeper.tidy()
    assert shelf.states() == {"kept": "sealed"}
    assert [row["id"] for row in rows(store, "SELECT id FROM event")] == ["e-kept"]
    assert {row["clip_id"] for row in rows(store, "SELECT clip_id FROM transfer")} == {"kept"}
    assert len(shelf.log("clip.deleted")) == 1  # the custody log forgets nothing


def test_looking_costs_nothing_where_there_is_nothing(shelf: Shelf) -> None:
    assert shelf.keeper.allowance() is None
    assert shelf.keeper.figures() == {}
    assert shelf.keeper.refusal(CLOSED) == ""
    assert shelf.keeper.tidy() == 0
    assert shelf.keeper.health().state == "ok"


def test_taking_stock_writes_nothing(store: Store, shelf: Shelf) -> None:
    from agent.vision.stock import Now, Site

    shelf.clip("c1")
    before = json.dumps(rows(store, "SELECT * FROM clip"))
    with store.reading() as connection:
        stock = take(connection, Site(shelf.folder, shelf.disks.present(), ("gate",)), Now(0))
    assert stock.used_bytes > 0
    assert json.dumps(rows(store, "SELECT * FROM clip")) == before


def test_what_a_sealed_clip_holds_already_makes_way_before_a_clip_is_refused(shelf_of) -> None:
    shelf = shelf_of(max_gb=0.022, recordings_min_gb=0.01)
    paths = []
    for number in range(180):
        paths.append(shelf.segment(100_000))
        if number % 2:
            shelf.clip(f"c{number}", 1000, "sealed")  # its footage is in the segment
        shelf.clock.advance(10)
    shelf.clip("large", 5_000_000, "sealed")
    shelf.keeper.tidy()
    shelf.loop.tidy()
    left = [path.exists() for path in paths]
    assert left == sorted(left)  # the oldest went, without exception
    assert 0 < left.count(False) < 100
    assert set(shelf.states().values()) == {"sealed"}


def test_recordings_on_a_disk_of_their_own_are_left_to_the_loop(shelf_of, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    mount_tmpfs(disk)
    try:
        shelf = shelf_of(max_gb=0.02, recordings_min_gb=0.01, folders=(disk,))
        (folder,) = [item for item in shelf.disks.present() if item.path == disk]
        for _ in range(30):
            shelf.clock.advance(10)
            shelf.segment(1_000_000)
        move = "UPDATE segment SET folder = ?"
        shelf.store.write(lambda connection: connection.execute(move, (folder.folder_id,)).rowcount)
        shutil.move(tmp_path / "segments", disk / "segments")
        shelf.clip("c1", 9_000_000, "sealed")
        shelf.keeper.tidy()
        allowance = shelf.keeper.allowance()
        assert list(allowance.folder_ids) == [""]
        assert shelf.keeper.health().state == "ok"  # nor do they need room here
        assert shelf.loop.tidy() == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_clip_whose_files_are_about_to_go_is_not_offered_to_a_new_store(shelf: Shelf) -> None:
    """Else a file would wait for its receipt that is in the garbage already."""
    kept, going = shelf.clip("kept"), shelf.clip("going")
    shelf.holds.pin("kept", WORD)
    shelf.clock.advance(40 * DAY_S)
    (step,) = shelf.keeper.look().steps
    assert shelf.keeper._delete(step)  # the files are still there
    tell = shelf.keeper._box.tell
    centre = CentreStore(shelf.store, shelf.folder, shelf.clock, shelf.note, tell, lambda *_: 0)
    centre.heard({"store": "a" * 32, "issued_utc_ms": 1})
    centre.heard({"store": "b" * 32, "issued_utc_ms": 2})
    shelf.keeper.tidy()
    assert shelf.states() == {"kept": "sealed", "going": "deleted"}
    assert (kept.exists(), going.exists()) == (True, False)
    query = "SELECT DISTINCT clip_id FROM transfer WHERE state = 'waiting'"
    assert [row["clip_id"] for row in rows(shelf.store, query)] == ["kept"]
    told = [message.body["clip_id"] for message in shelf.told if message.kind == "gap/file"]
    assert set(told) == {"going"}
