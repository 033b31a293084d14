"""Beats and states as the centre will see them: through the real outbox, against the schemas."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from agent.core import wire
from agent.core.clock import RealClock, SimClock
from agent.core.errors import OutboxFull
from agent.core.model import Lane, Message
from agent.core.store import Store
from agent.core.wire import Topics
from agent.delivery.outbox import Outbox
from agent.device.telemetry import Facts, Telemetry, TelemetryConfig, topic_name
from agent.supervisor import WorkerHealth

NOW_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True, slots=True)
class Camera:
    state: str = "streaming"
    since_utc_ns: int = NOW_NS
    detail: str = ""
    lag_ms: int | None = None
    packets: int = 0
    dropped: int = 0
    ring_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Counted:
    frames: int = 0
    inferences: int = 0
    blind: tuple = ()


class Box:
    """A box whose parts a test sets; what it reports comes to `messages`."""

    def __init__(self, folder: Path) -> None:
        self.messages: list[Message] = []
        self.camera = Camera()
        self.blind = ()
        self.workers: dict[str, WorkerHealth] = {}
        self.parts: dict[str, WorkerHealth] = {}
        self.facts = Facts(
            folder=folder,
            queues=lambda: {"alarm": 2, "telemetry": 0},
            files_waiting=lambda: 3,
            cameras={"gate": lambda: self.camera},
            counters=lambda _name: Counted(100, 7, self.blind),
            workers=lambda: self.workers,
            parts=lambda: self.parts,
        )

    def states(self) -> list[tuple[str, str, str]]:
        return [
            (item.lane, item.kind, str(item.body["state"]))
            for item in self.messages
            if item.kind != "beat"
        ]

    def beats(self) -> list[Message]:
        return [item for item in self.messages if item.kind == "beat"]


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


@contextmanager
def scripted(box: Box, turns: dict[int, Callable[[], object]], last: int) -> Iterator[SimClock]:
    """Run the worker on a simulated clock; at the end of loop turn N do what stands there."""
    clock = SimClock(NOW_NS)
    stop = threading.Event()
    turn = 0

    def progress() -> None:
        nonlocal turn
        turn += 1
        turns.get(turn, lambda: None)()
        if turn >= last:
            stop.set()

    Telemetry(box.messages.append, box.facts, clock, TelemetryConfig(30.0)).run(stop, progress)
    yield clock


def health(state: str, detail: str = "") -> WorkerHealth:
    return WorkerHealth(state, NOW_NS, detail)


def test_beats_at_the_start_and_then_every_period(box: Box) -> None:
    with scripted(box, {}, last=3600):
        assert len(box.beats()) == 120
    assert [item.lane for item in box.beats()] == [Lane.TELEMETRY] * 120
    assert box.beats()[0].body["uptime_s"] == 5
    assert box.beats()[1].body["uptime_s"] == 35
    assert not box.beats()[0].needs_receipt


def test_a_beat_holds_what_it_was_given(box: Box) -> None:
    box.camera = Camera(lag_ms=-12, packets=900, dropped=4, ring_bytes=5000)
    box.blind = ({"rule": "over-kerb", "reason": "dark", "total_s": 61.5},)
    box.workers = {"recorder gate": health("running"), "clip": health("x" * 100)}
    head = {"payloadType": "t", "payload": "", "signatures": [signature()]}
    box.facts = replace(
        box.facts, last_receipt_utc_ns=lambda: NOW_NS + 5_999_999, custody=lambda: head
    )
    with scripted(box, {}, last=5):
        body = json.loads(json.dumps(box.beats()[0].body))
    assert body["cameras"] == [
        {
            "id": "gate",
            "state": "streaming",
            "lag_ms": -12,
            "packets": 900,
            "dropped": 4,
            "frames": 100,
            "inferences": 7,
            "ring_bytes": 5000,
            "blind": [{"rule": "over-kerb", "reason": "dark", "total_s": 61.5}],
        }
    ]
    assert body["queues"] == {"alarm": 2, "telemetry": 0}
    assert body["files_waiting"] == 3
    assert body["workers"] == {"recorder gate": "running", "clip": "x" * 64}
    assert body["last_receipt_utc_ms"] == NOW_NS // 1_000_000 + 5
    assert body["custody"] == head
    assert body["disk_free_bytes"] > 0
    wire.check("beat", body)
    jsonschema.validate(body, json.loads(wire.schema_text("beat")))


def signature() -> dict[str, str]:
    return {"keyid": "ed25519:" + "0" * 32, "sig": "A" * 86 + "=="}


def test_a_beat_counts_the_memory_and_time_of_children(box: Box, clock: RealClock) -> None:
    telemetry = Telemetry(box.messages.append, box.facts, clock, TelemetryConfig(1.0))
    before: Any = telemetry.beat()
    busy = (
        "import os, sys\nblock = bytearray(b'x') * (64 << 20)\n"
        "while os.times().user < 0.4: pass\nprint(1, flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        during: Any = telemetry.beat()
        child.communicate(b"")
    after: Any = telemetry.beat()
    assert before["cpu_pct"] == 0, "nothing to compare with yet"
    assert during["rss_mib"] - before["rss_mib"] > 60
    assert 5 < during["cpu_pct"] < 110, "one busy thread, waited for by a sleeping one"
    assert after["rss_mib"] < during["rss_mib"] - 60
    assert after["cpu_pct"] >= 0, "the child's time does not count backwards"


def test_states_are_told_once_a_change(box: Box) -> None:
    def becomes(state: str, detail: str = "") -> Callable[[], None]:
        def change() -> None:
            box.camera = Camera(state, detail=detail)

        return change

    box.camera = Camera("connecting")
    turns = {
        2: becomes("streaming"),
        6: becomes("lost", "rtsp: refused"),
        8: becomes("connecting"),  # a try, not a change
        9: becomes("lost", "rtsp: timed out"),
        11: becomes("streaming"),
        14: becomes("auth_failed", "401 " + "x" * 600),
    }
    with scripted(box, turns, last=20):
        assert box.states() == [
            ("state", "state/gate", "streaming"),
            ("state", "state/gate", "lost"),
            ("state", "state/gate", "streaming"),
            ("alarm", "state/gate", "auth_failed"),
        ]
    told = [item for item in box.messages if item.kind == "state/gate"]
    assert all(item.is_retained for item in told)
    assert told[1].body["detail"] == "rtsp: refused"
    for item in told:
        wire.check("state", item.body)


def test_a_disabled_worker_is_an_alarm_and_every_start_clears_the_last_one(box: Box) -> None:
    box.workers = {"recorder gate": health("starting"), "uplink": health("running")}

    def disable() -> None:
        box.workers = {**box.workers, "recorder gate": health("disabled", "401")}

    def run() -> None:
        box.workers = {**box.workers, "recorder gate": health("running")}

    def wait() -> None:
        box.workers = {**box.workers, "uplink": health("waiting", "broker")}

    with scripted(box, {2: run, 4: wait, 6: disable}, last=9):
        assert box.states() == [
            ("state", "state/gate", "streaming"),
            ("state", "state/worker.uplink", "running"),
            ("state", "state/worker.recorder-gate", "running"),
            ("alarm", "state/worker.recorder-gate", "disabled"),
        ]


def test_goes_through_the_real_outbox(box: Box, store: Store, clock: RealClock) -> None:
    outbox = Outbox(store, Topics("plaza", "cam-1"), clock, 1)
    box.workers = {"Recorder gate/1 ü": health("running")}
    stop = threading.Event()
    telemetry = Telemetry(outbox.put, box.facts, clock, TelemetryConfig(0.05))
    telemetry.run(stop, lambda: stop.set() if len(outbox.take(10, ())) > 2 else None)
    rows = {row.topic: row for row in outbox.take(10, ())}
    assert set(rows) >= {
        "outpost/1/plaza/cam-1/beat",
        "outpost/1/plaza/cam-1/state/gate",
        "outpost/1/plaza/cam-1/state/worker.recorder-gate-1--",
    }
    envelope = wire.decode("envelope", rows["outpost/1/plaza/cam-1/beat"].payload)
    wire.check("beat", envelope["body"])


def test_a_state_that_the_outbox_refused_is_told_again(box: Box) -> None:
    refusals = [OutboxFull("store: full")]
    messages: list[Message] = []

    def put(message: Message) -> None:
        if refusals:
            raise refusals.pop()
        messages.append(message)

    telemetry = Telemetry(put, box.facts, SimClock(NOW_NS), TelemetryConfig(30.0))
    stop = threading.Event()
    with pytest.raises(OutboxFull):
        telemetry.run(stop, stop.set)
    telemetry.run(stop, stop.set)
    assert [item.kind for item in messages] == ["state/gate"]


def test_topic_names_are_topics() -> None:
    assert topic_name("Recorder gate/1+#") == "recorder-gate-1--"


def test_parts_of_the_box_are_told_under_their_names(box: Box) -> None:
    box.parts = {"disk-1": health("ready"), "disk-2": health("missing", "not mounted")}
    turns = {5: lambda: box.parts.update({"disk-2": health("ready")})}
    with scripted(box, turns, 9):
        pass
    told = [(item.kind, item.body["state"]) for item in box.messages if "disk" in item.kind]
    assert told == [
        ("state/disk-1", "ready"),
        ("state/disk-2", "missing"),
        ("state/disk-2", "ready"),
    ]
