"""The camera role as real processes: camera, agent, broker and receiver, and what goes wrong."""

import json
import os
import signal
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from firmware_sim import broker as brokers
from firmware_sim.demo import PASSWORD, ROOT, Screen, Stage, free_port, prepare

pytestmark = [pytest.mark.video, pytest.mark.broker]
MODELS = ROOT / "agent" / "vision" / "models"


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the two streams, made once."""
    stage = Stage(tmp_path_factory.mktemp("media"), "embedded", 1)
    stage.make_media()
    return stage.media


@pytest.fixture
def stage(tmp_path: Path, media: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path, "embedded", free_port())
    stage.media = media
    yield stage
    stage.clear()


def wait_for(stage: Stage, what: Callable[[Any], bool], limit_s: float = 40.0) -> Any:
    """Ask for the status until it is so."""
    deadline_s = time.monotonic() + limit_s
    now: Any = {}
    while time.monotonic() < deadline_s:
        now = stage.status()
        if "cameras" in now and what(now):
            return now
        if stage.processes["agent"].poll() is not None:
            break
        time.sleep(0.3)
    log = (stage.folder / "agent.log").read_text()[-3000:]
    pytest.fail(f"never so; last status {now}; log:\n{log}")


def stop(stage: Stage, number: signal.Signals) -> tuple[int, float]:
    """Send a signal to the agent; gives exit code and seconds."""
    process = stage.processes.pop("agent")
    begun_s = time.monotonic()
    process.send_signal(number)
    return process.wait(10), time.monotonic() - begun_s


def rows(stage: Stage, query: str) -> list[tuple[Any, ...]]:
    """Read the agent's database."""
    connection = sqlite3.connect(f"file:{stage.state / 'outpost.db'}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def told_to_the_centre(stage: Stage, kind: str, limit_s: float = 20.0) -> list[dict[str, Any]]:
    """Envelopes of a kind that the centre has stored; waits for the first."""
    until_s = time.monotonic() + limit_s
    while time.monotonic() < until_s:
        connection = sqlite3.connect(f"file:{stage.store / 'receiver.db'}?mode=ro", uri=True)
        found = connection.execute("SELECT payload FROM message WHERE kind = ?", (kind,)).fetchall()
        connection.close()
        if found:
            return [json.loads(payload) for (payload,) in found]
        time.sleep(0.2)
    return []


def schedule_is_told(stage: Stage, now: Any) -> None:
    assert now["schedule"].startswith("files 8000 kbit/s")
    (beat, *_) = told_to_the_centre(stage, "beat")
    assert beat["body"]["schedule"]["files_kbit_s"] == 8000


def bytes_of_today(stage: Stage) -> int:
    ((stored,),) = rows(stage, "SELECT value FROM meta WHERE key = 'uplink/day'")
    return int(json.loads(stored)["files"])


def gaps_told(stage: Stage, limit_s: float = 60.0) -> list[tuple[Any, ...]]:
    """Reason and length of what was not recorded; waits for the first.

    The analysis has a stream of its own: its events may come before the recorder's first picture.
    """
    until_s = time.monotonic() + limit_s
    while time.monotonic() < until_s:
        if found := rows(stage, "SELECT reason, to_utc_ns - from_utc_ns FROM gap"):
            return found
        time.sleep(0.2)
    return []


def test_from_camera_to_receipt_stop_and_go_on(stage: Stage) -> None:
    stage.extra = {"uplink.schedule.files_kbit_s": 8000}
    prepare(stage, Screen(is_quiet=True))
    now = wait_for(stage, lambda now: now["clips_receipted"] >= 1)
    schedule_is_told(stage, now)
    second = subprocess.run(
        stage.outpost("run", *stage.config()), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert "another agent runs on it" in second.stderr

    code, took_s = stop(stage, signal.SIGTERM)
    assert code == 0
    assert took_s < 5
    assert rows(stage, "SELECT count(*) FROM event WHERE state = 'open'") == [(0,)]
    assert rows(stage, "SELECT count(*) FROM segment WHERE state = 'open'") == [(0,)]
    before = rows(stage, "SELECT id FROM event")
    assert bytes_of_today(stage) > 10_000

    time.sleep(8)  # longer than what the camera sends of the past when it is opened
    stage.start_agent()
    after = wait_for(stage, lambda now: now["events_closed"] > len(before))
    assert after["running"]
    assert rows(stage, "SELECT value FROM meta WHERE key = 'boot'") == [("2",)]
    assert set(before) <= set(rows(stage, "SELECT id FROM event"))
    gaps = gaps_told(stage)
    assert [reason for reason, _ in gaps] == ["the agent was not running"]
    assert 0 < gaps[0][1] < 60e9

    stage.stop("camera")
    wait_for(
        stage,
        lambda now: (
            not any(
                now[name]
                for name in ("events_open", "clips_wanted", "files_waiting", "receipts_waiting")
            )
        ),
        60,
    )
    code, took_s = stop(stage, signal.SIGINT)
    assert code == 0
    assert took_s < 5
    closed = {row[0] for row in rows(stage, "SELECT id FROM event")}
    centre = stage.json("receive", "--status", "--json", "--store", str(stage.store))
    assert sorted(row["event_id"] for row in centre["events"]) == sorted(closed)
    clips = dict(rows(stage, "SELECT event_id, id FROM clip WHERE state = 'receipted'"))
    assert {row["event_id"]: row["clip_id"] for row in centre["events"]} == clips
    assert stage.verify()["ok"]
    assert PASSWORD not in (stage.folder / "agent.log").read_text()


def test_wrong_password_is_told_and_nothing_else_stops(stage: Stage) -> None:
    prepare(stage, Screen(is_quiet=True), agent_password="not-the-password")
    now = wait_for(stage, lambda now: now["cameras"][0]["recording"] == "auth_failed")
    assert "turned down" in now["cameras"][0]["detail"]
    wait_for(stage, lambda now: now["link"] == "connected")
    time.sleep(3)
    centre = stage.json("receive", "--status", "--json", "--store", str(stage.store))
    assert centre["devices"][0]["device"] == "cam-0001"
    log = (stage.folder / "agent.log").read_text()
    assert "not-the-password" not in log
    assert stage.control({"do": "stats"})["failed_logins"] <= 5
    assert stop(stage, signal.SIGTERM)[0] == 0


def test_a_model_cut_short_leaves_recording(stage: Stage) -> None:
    manifest = json.loads((MODELS / "ssd_mobilenetv2_oidv4_int8.json").read_text())
    model = stage.folder / manifest["file"]
    model.write_bytes((MODELS / manifest["file"]).read_bytes()[:-1000])
    broken = stage.folder / "model.json"
    broken.write_text(json.dumps(manifest))
    stage.extra["detector.model"] = broken
    prepare(stage, Screen(is_quiet=True))
    now = wait_for(stage, lambda now: now["detector"].startswith("degraded"))
    assert manifest["file"] in now["detector"]
    now = wait_for(stage, lambda now: now["cameras"][0]["packets"] > 30)
    assert now["cameras"][0]["recording"] == "streaming"
    wait_for(stage, lambda now: now["events_open"] + now["events_closed"] > 0)
    assert {row[0] for row in rows(stage, "SELECT kind FROM event")} == {"motion"}
    (told,) = told_to_the_centre(stage, "state/detector")
    assert (told["body"]["state"], told["lane"]) == ("degraded", "alarm")
    assert manifest["file"] in told["body"]["detail"]
    assert stop(stage, signal.SIGTERM)[0] == 0
    assert rows(stage, "SELECT count(*) FROM segment WHERE state = 'closed'")[0][0] >= 1


def figures(port: int) -> dict[str, float]:
    """What Prometheus would read of the running agent."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        lines = [line for line in page.read().decode().splitlines() if not line.startswith("#")]
    return {key: float(value) for key, _, value in (line.rpartition(" ") for line in lines)}


def test_without_a_broker_everything_is_kept(stage: Stage) -> None:
    port = free_port()
    stage.extra = {
        "metrics.enabled": True,
        "metrics.port": port,
        "homeassistant.enabled": True,
    }
    prepare(stage, Screen(is_quiet=True))
    assert stage.broker is not None
    stage.broker.kill()
    now = wait_for(stage, lambda now: now["clips_sealed"] >= 1)
    assert now["link"] in ("waiting", "connecting")
    assert now["receipts_waiting"] >= 2
    found = figures(port)
    assert found["outpost_uplink_connected"] == 0
    assert found['outpost_outbox_rows{lane="alarm"}'] >= 2
    assert found['outpost_camera_packets_total{camera="plaza-west"}'] > 0
    assert found['outpost_worker_running{worker="metrics"}'] == 1
    described = json.loads(rows(stage, "SELECT value FROM meta WHERE key = 'homeassistant'")[0][0])
    assert any("plaza-west_rule_person-on-crossing" in topic for topic in described)
    assert stop(stage, signal.SIGTERM)[0] == 0
    stage.broker = brokers.start("embedded", stage.broker_port, stage.broker_folder)
    stage.start_agent()
    wait_for(stage, lambda now: now["clips_receipted"] >= 1)


def test_a_killed_analysis_closes_its_events_and_comes_back(stage: Stage) -> None:
    prepare(stage, Screen(is_quiet=True))
    wait_for(stage, lambda now: now["events_open"] >= 1)
    for pid in stage.children("agent"):
        subprocess.run(["kill", "-9", str(pid)], check=True)
    wait_for(
        stage,
        lambda _: (
            rows(stage, "SELECT count(*) FROM event WHERE body LIKE '%analysis restarted%'")[0][0]
            > 0
        ),
    )
    before = stage.status()["cameras"][0]["packets"]
    now = wait_for(stage, lambda now: now["cameras"][0]["packets"] > before + 10)
    assert now["cameras"][0]["recording"] == "streaming"
    assert rows(stage, "SELECT count(*) FROM gap") == [(0,)]
    wait_for(stage, lambda now: now["cameras"][0]["inferences"] > 3)


def test_a_stalled_analysis_costs_no_footage(stage: Stage) -> None:
    prepare(stage, Screen(is_quiet=True))
    wait_for(stage, lambda now: now["cameras"][0]["inferences"] > 3)
    (analysis,) = stage.children("agent")
    before = stage.status()["cameras"][0]["packets"]
    os.kill(analysis, signal.SIGSTOP)
    try:
        now = wait_for(stage, lambda now: now["cameras"][0]["packets"] > before + 150, 60)
        assert now["cameras"][0]["dropped"] == 0
    finally:
        os.kill(analysis, signal.SIGCONT)
    assert rows(stage, "SELECT count(*) FROM gap") == [(0,)]
    seen = now["cameras"][0]["inferences"]
    wait_for(stage, lambda now: now["cameras"][0]["inferences"] > seen + 3)


def test_a_camera_without_a_small_stream_is_opened_once(stage: Stage) -> None:
    stage.has_sub = False
    prepare(stage, Screen(is_quiet=True))
    now = wait_for(stage, lambda now: now["cameras"][0]["inferences"] >= 4, 60)
    assert now["cameras"][0]["analysis"] == "streaming"
    assert now["cameras"][0]["frames"] * 10 < now["cameras"][0]["packets"]
    wait_for(stage, lambda now: now["events_open"] >= 1, 60)
    assert stage.control({"do": "stats"})["clients"] == 1
    stage.control({"do": "drop"})
    seen = stage.status()["cameras"][0]["inferences"]
    wait_for(stage, lambda now: now["cameras"][0]["inferences"] > seen + 2, 60)
    assert stage.control({"do": "stats"})["clients"] == 1
    assert stop(stage, signal.SIGTERM)[0] == 0
