"""The dock role as real processes: cards in slots, agent, broker and receiver."""

import hashlib
import json
import random
import sqlite3
import subprocess
import time
from contextlib import ExitStack, closing

import av
import pytest

from firmware_sim.bodycam import BodyCam
from firmware_sim.demo import free_port
from firmware_sim.dock_stage import DockStage
from firmware_sim.s3 import S3
from tests.docking.dockside import Camera

pytestmark = [pytest.mark.broker, pytest.mark.video]
SLOTS = ("1", "2", "3")


SETTINGS = {
    "dock.wipe.min_hold_h": 0.0,
    "dock.set_clock": "always",
    "dock.copy.rescue": False,
    "dock.copy.storage_wait_s": 4.0,
    "dock.link.driver": "bodycam_serial",
    "dock.link.timeout_s": 0.3,
    "dock.min_battery_percent": 60,
}


@pytest.fixture
def stage(tmp_path):
    made = DockStage(tmp_path, "embedded", free_port(), slots=SLOTS)
    made.extra = dict(SETTINGS)
    made.start_all()
    yield made
    made.clear()


def card(folder, serial, files=3, size=400_000):
    made = Camera(folder, serial)
    for number in range(files):
        made.film(f"DCIM/100MEDIA/MOV_{number:04}.mp4", size)
    return made


def people_see_that_it_is_at_the_centre(stage):
    now = stage.seen("1")
    assert (now["word"], now["colour"], now["footage"]) == ("Ready", "green", "at_centre")
    assert (now["files_done"], now["files_total"]) == (3, 3)
    shown = stage.text("dock", "watch", "--once", *stage.config())
    assert "at the centre" in shown
    slip = stage.text("dock", "slip", "bc0001", *stage.config()).splitlines()
    assert "AT THE CENTRE SINCE" in slip
    said = stage.text("dock", "slip", "--check", slip[-1], *stage.config())
    assert said.startswith("true; now: all at the centre")
    found = stage.json("report", "dock", "--json", *stage.config())
    assert found["waiting"] == []
    assert found["last_receipt_utc_ms"] is not None
    query = "SELECT count(*) FROM message WHERE kind = 'report/dock'"
    with closing(sqlite3.connect(stage.store / "receiver.db")) as connection:
        assert connection.execute(query).fetchone() == (1,)


def test_a_card_is_docked_signed_for_and_wiped(stage, tmp_path):
    camera = card(tmp_path, "BC0001")
    camera.plug(stage.slot["1"])
    stage.wait("1", "ready")
    assert camera.files() == {}
    kept = {row["sha256"] for row in stage.json("inspect", "files", "--json", *stage.config())}
    centre = stage.json("receive", "--status", "--json", "--store", str(stage.store))
    assert {row["sha256"] for row in centre["files"]} == kept
    assert len(kept) == 4, "three recordings and the list of the docking"
    words = ["--json", "--key", str(stage.device_key), "--receiver-key", str(stage.pinned)]
    report = stage.json("verify", str(stage.store / "plaza" / "dock-0001"), *words)
    assert report["ok"], report
    people_see_that_it_is_at_the_centre(stage)
    camera.pull()
    stage.wait("1", "empty")


@pytest.mark.crash
def test_killed_again_and_again_nothing_is_lost_or_copied_twice(stage, tmp_path):
    cameras = [card(tmp_path, f"BC000{slot}", files=4, size=3_000_000) for slot in SLOTS]
    dice = random.Random(5)
    for camera, slot in zip(cameras, stage.slot.values(), strict=True):
        camera.plug(slot)
    for _ in range(8):
        time.sleep(dice.uniform(0.3, 1.2))
        agent = stage.processes.pop("agent")
        agent.kill()
        agent.wait()
        stage.start_agent()
    for slot in SLOTS:
        stage.wait(slot, "ready", limit_s=60)
    kept = {row["sha256"] for row in stage.json("inspect", "files", "--json", *stage.config())}
    for camera in cameras:
        assert camera.files() == {}
        assert {hashlib.sha256(data).hexdigest() for _, data in camera.ever} <= kept
    text = stage.text("inspect", "custody", "--json", "--limit", "9999", *stage.config())
    sealed = [json.loads(line) for line in text.splitlines()]
    names = [row["subject"] for row in sealed if row.get("kind") == "footage.sealed"]
    assert len(names) == len(set(names)) == 12


def row(stage, query, *values):
    return (stage.rows(query, *values) or [None])[0]


def test_a_camera_that_comes_twice_is_spoken_to_copied_wiped_and_charged(stage, tmp_path):
    scenario = {"serial": "BC0001", "clock_offset_s": 25_200, "percent": 50, "clip_s": 1.0}
    with BodyCam(tmp_path, scenario) as camera:
        camera.plug(stage.slot["1"])
        stage.wait("1", "ready", limit_s=40)
        assert list(camera.card.rglob("*.mp4")) == []
        offset_ms, officer, model = row(
            stage, "SELECT clock_offset_ms, officer, model FROM dock_session"
        )
        assert abs(offset_ms - 25_200_000) < 500
        assert (officer, model) == ("0421", "OP-BC1")
        assert abs(camera.utc_ns() - time.time_ns()) < 1_000_000_000, "and it is right now"
        charge = row(stage, "SELECT battery_percent FROM dock_session")[0]
        assert charge >= 50
        camera.pull()
        stage.wait("1", "empty", limit_s=20)


def test_what_goes_wrong_with_a_camera_has_its_code(stage, tmp_path):
    wrong = {
        "1": ({"serial": "BC0001", "faults": ["never_enters_storage"]}, "attention", "D-04"),
        "2": ({"serial": "BC0002", "volume_serial": "BC0077"}, "quarantine", "D-07"),
        "3": ({"serial": "BC0003", "faults": ["wipe_lies"]}, "quarantine", "D-15"),
    }
    with ExitStack() as stack:
        for slot, (scenario, _, _) in wrong.items():
            made = stack.enter_context(BodyCam(tmp_path, {"clip_s": 1.0, **scenario}))
            made.plug(stage.slot[slot])
        for slot, (_, state, code) in wrong.items():
            assert stage.wait(slot, state, limit_s=40)["code"] == code
        assert len(list((tmp_path / "card-BC0001").rglob("*.mp4"))) == 3
        filed = row(stage, "SELECT count(*) FROM footage WHERE camera = 'bc0077'")
        assert filed == (3,), "kept, and under its own name"
        assert row(stage, "SELECT count(*) FROM footage WHERE camera = 'bc0002'") == (0,)


def test_a_broken_recording_gets_a_playable_copy_beside_it(stage, tmp_path):
    scenario = {"serial": "BC0001", "card": ["no_moov"], "clip_s": 2.0, "files": 3}
    stage.stop("agent")
    stage.extra["dock.copy.rescue"] = True
    stage.start_agent()
    with BodyCam(tmp_path, scenario) as camera:
        broken = max(camera.card.rglob("*.mp4")).read_bytes()
        camera.plug(stage.slot["1"])
        stage.wait("1", "ready", limit_s=60)
        until_s = time.monotonic() + 60
        while list(camera.root.rglob("*.mp4")) and time.monotonic() < until_s:
            time.sleep(0.1)  # ready, but for the file whose rescue is under way
        assert list(camera.root.rglob("*.mp4")) == []
        copy_id, path = row(stage, "SELECT id, path FROM footage WHERE derived_from != ''")
        assert row(stage, "SELECT count(*) FROM transfer WHERE clip_id = ?", copy_id) == (1,)
        (original,) = row(stage, "SELECT path FROM footage WHERE flags LIKE '%unplayable%'")
        assert (stage.state / original / "recording.mp4").read_bytes() == broken
        words = ["--json", "--key", str(stage.device_key)]
        assert stage.json("verify", str(stage.state / path), *words)["ok"]
        with av.open(str(stage.state / path / "recording.mp4")) as found:
            assert sum(1 for _ in found.decode(video=0)) > 20


def test_a_login_that_is_refused_and_a_thing_that_is_no_camera(stage, tmp_path):
    with BodyCam(tmp_path, {"serial": "BC0001", "password": "other"}) as camera:
        camera.plug(stage.slot["1"])
        stage.slot["2"].put_device("046d:c31c")
        assert stage.wait("1", "attention")["code"] == "D-03"
        assert stage.wait("2", "unknown")["code"] == "D-01"
        time.sleep(2)
        assert camera.orders.count("login") == 1, "a camera that is asked again may lock itself"


def test_people_at_a_dock_hold_and_allow_through_the_running_agent(stage, tmp_path):
    camera = card(tmp_path, "BC0001")
    words = ["--reason", "court 17/26", "--by", "Lt. 0300", *stage.config()]
    span = ["--from", "2026-01-01", "--to", "2027-01-01"]
    stage.wait("1", "empty")
    stage.text("hold", "place", "--camera", "bc0001", *span, *words)
    camera.plug(stage.slot["1"])
    stage.wait("1", "ready")
    until_s = time.monotonic() + 60
    kept = "SELECT DISTINCT kept_because FROM footage"
    while stage.rows(kept) != [("it is held",)] and time.monotonic() < until_s:
        time.sleep(0.2)
    assert stage.rows(kept) == [("it is held",)]
    assert len(camera.files()) == 3
    session = stage.seen("1")["session"]
    refused = subprocess.run(
        stage.outpost("dock", "allow-wipe", session, *words),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode != 0
    assert "second_copy_dir is not configured" in refused.stderr


def test_a_whole_shift_goes_to_an_object_store_and_is_wiped_on_its_receipt(stage, tmp_path):
    """The server is the stand-in of `firmware_sim.s3`, which checks what a real one checks."""
    secret = tmp_path / "s3.key"
    secret.write_text("AKIAEXAMPLE\nsecret-of-the-bucket\n")
    secret.chmod(0o600)
    with S3("AKIAEXAMPLE", "secret-of-the-bucket") as server:
        stage.stop("receiver")
        stage.stop("agent")
        words = ["--s3-endpoint", server.endpoint, "--s3-bucket", server.bucket]
        stage.receive = [*words, "--s3-key", str(secret), "--bulk-over", "4"]
        stage.extra["delivery.bulk_hosts"] = [f"127.0.0.1:{server.port}"]
        stage.start_receiver()
        stage.start_agent()
        camera = card(tmp_path, "BC0001", files=2, size=12_000_000)
        camera.film("DCIM/100MEDIA/MOV_0009.mp4", 1000)
        camera.plug(stage.slot["1"])
        stage.wait("1", "ready", limit_s=60)
        assert camera.files() == {}
        large = {data for _, data in camera.ever if len(data) > 4 << 20}
        assert large <= set(server.objects.values())
        places = [json.loads(text) for (text,) in stage.rows("SELECT receipt FROM transfer")]
        assert sum("places" in receipt for receipt in places) == 2
