"""A hundred thousand rows after an outage: how fast they leave, beside plain paho; and live ones.

The rows are telemetry of an hour ago, in the agent's own outbox. Ours reads them from the disk,
publishes with QoS 1 and deletes what is acknowledged; plain paho publishes the same bytes from
memory with the same window and forgets nothing. mosquitto is the broker, `mosquitto_sub` listens.
Beside a second backlog an alarm is put forty times a second; its latency ends at a subscriber.
"""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from agent.core.clock import NS_PER_S, RealClock, SimClock
from agent.core.model import Lane, Message
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.core.wire import Topics
from agent.delivery.config import BrokerConfig, DeliveryConfig
from agent.delivery.outbox import Outbox
from agent.delivery.uplink import Uplink, live_sessions
from agent.device import proc
from benchmarks._table import markdown
from firmware_sim import broker as broker_sim

ROWS, LIVE_ROWS = 100_000, 60_000
ROUNDS = 2
WINDOW = 64
ALARM_EVERY_S = 0.025
AT_A_TIME = 500
LIMIT_S = 300.0
TOPICS = Topics("site", "device")
STATE = {"state": "streaming", "since_utc_ms": 1_790_000_000_000, "detail": "x" * 200}
BIRTH = {
    "agent": "outpost",
    "site": "site",
    "role": "camera",
    "cameras": ["gate"],
    "model": "m",
    "keyid": "ed25519:" + "0" * 32,
}
EVENT: dict[str, object] = {
    "event_id": "0" * 32,
    "camera": "gate",
    "kind": "zone_enter",
    "rule": "in",
    "state": "closed",
    "start_utc_ms": 1,
    "end_utc_ms": 2,
    "label": "person",
    "score": 0.8,
    "tracks": [1],
    "measured": {},
    "model": "m",
    "reason": "",
}


def table() -> str:
    """Measure, and give the table."""
    if broker_sim.mosquitto_path() is None:
        return "skipped: mosquitto is not installed"
    best: dict[str, dict[str, float]] = {}
    for _ in range(ROUNDS):
        for way in ("plain", "ours"):
            found = _run(way, ROWS)
            if way not in best or found["cpu_s"] < best[way]["cpu_s"]:
                best[way] = found
    live = _run("live", LIVE_ROWS)
    plain, ours = best["plain"], best["ours"]
    cpu = [item["cpu_s"] / ROWS * 1e6 for item in (plain, ours)]
    speed = [f"{ROWS / item['seconds']:,.0f}" for item in (plain, ours)]
    rows = [
        ("backlog, messages/s", *speed, "at least 8,000"),
        ("CPU a message, us", f"{cpu[0]:.0f}", f"{cpu[1]:.0f}", ""),
        ("the same, against plain paho", "1x", f"{cpu[1] / cpu[0]:.2f}x", "up to 1.2x"),
        ("RSS growth, MiB", "", f"{ours['grown_mib']:+.1f}", "up to +10"),
        (f"alarm beside {LIVE_ROWS:,}, p50, ms", "", f"{live['p50_ms']:.0f}", ""),
        (f"alarm beside {LIVE_ROWS:,}, p99, ms", "", f"{live['p99_ms']:.0f}", "up to 150"),
    ]
    return markdown(["what", "plain paho", "Outpost", "bound"], rows)


def _run(way: str, rows: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        _fill(Path(folder), rows)
        with broker_sim.start("mosquitto", directory=Path(folder) / "broker") as broker:
            sink = ["mosquitto_sub", "-p", str(broker.port), "-t", "outpost/#", "-q", "0"]
            with subprocess.Popen(sink, stdout=subprocess.DEVNULL) as listening:
                heard = _Heard(broker.port)
                argv = [sys.executable, "-m", "benchmarks.backlog", way, folder, str(broker.port)]
                printed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
                found: dict[str, float] = json.loads(printed.splitlines()[-1])
                listening.terminate()
                return found | heard.close()


class _Heard:
    """A subscriber to alarms that notes how old each is when it comes."""

    def __init__(self, port: int) -> None:
        self._ms: list[float] = []
        self._client = Client(
            CallbackAPIVersion.VERSION2, "heard", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.on_message = self._note
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(f"{TOPICS.root}/event/#", qos=1)
        self._client.loop_start()

    def close(self) -> dict[str, float]:
        """Give the percentiles in ms, if anything came."""
        self._client.disconnect()
        self._client.loop_stop()
        late_ms = sorted(self._ms)
        if not late_ms:
            return {}
        return {
            "p50_ms": late_ms[len(late_ms) // 2],
            "p99_ms": late_ms[len(late_ms) * 99 // 100],
            "alarms": len(late_ms),
        }

    def _note(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        put_ns = json.loads(message.payload)["body"]["measured"]["put_s"] * NS_PER_S
        self._ms.append((time.monotonic_ns() - put_ns) / 1e6)


def _fill(folder: Path, rows: int) -> None:
    clock = SimClock(time.time_ns() - 3600 * NS_PER_S)
    store = Store(folder / "outpost.db", DEVICE_MIGRATIONS, clock)
    store.open()
    outbox = Outbox(store, TOPICS, clock, boot=1)

    def some(connection: sqlite3.Connection) -> None:
        for _ in range(AT_A_TIME):
            outbox.put_in(connection, Message(Lane.TELEMETRY, "state/camera", STATE))

    for _ in range(rows // AT_A_TIME):
        store.write(some)
    store.close()


def _ours(folder: Path, port: int, *, has_alarms: bool) -> dict[str, float]:
    clock = RealClock()
    store = Store(folder / "outpost.db", DEVICE_MIGRATIONS, clock)
    store.open()
    outbox = Outbox(store, TOPICS, clock, boot=2)
    settings = DeliveryConfig(receiver_key_path=folder / "none.pub", window=WINDOW)
    sessions = live_sessions(BrokerConfig(port=port), settings, TOPICS, 2, clock)
    uplink = Uplink(sessions, outbox, lambda _: (), lambda: BIRTH, clock, settings)
    stop = threading.Event()
    before_bytes = proc.usage(os.getpid()).rss_bytes
    begun_s, cpu_s = time.perf_counter(), time.process_time()
    worker = threading.Thread(target=uplink.run, args=(stop, lambda: None))
    worker.start()
    most_bytes = before_bytes
    with store.reading() as connection:
        while not _is_empty(connection):
            most_bytes = max(most_bytes, proc.usage(os.getpid()).rss_bytes)
            if has_alarms:
                measured = {"put_s": time.monotonic_ns() / NS_PER_S}
                body = {**EVENT, "measured": measured}
                outbox.put(Message(Lane.ALARM, "event/zone_enter", body))
            if stop.wait(ALARM_EVERY_S) or time.perf_counter() - begun_s > LIMIT_S:
                raise RuntimeError("the backlog did not drain")
    found = {
        "seconds": time.perf_counter() - begun_s,
        "cpu_s": time.process_time() - cpu_s,
        "grown_mib": (most_bytes - before_bytes) / (1 << 20),
    }
    stop.set()
    worker.join()
    store.close()
    return found


def _is_empty(connection: sqlite3.Connection) -> bool:
    wanted = "SELECT 1 FROM outbox WHERE lane = 'telemetry' LIMIT 1"
    return connection.execute(wanted).fetchone() is None


def _plain(folder: Path, port: int) -> dict[str, float]:
    with sqlite3.connect(folder / "outpost.db") as connection:
        rows = connection.execute("SELECT topic, payload FROM outbox ORDER BY id").fetchall()
    client = Client(CallbackAPIVersion.VERSION2, "plain", protocol=MQTTProtocolVersion.MQTTv5)
    client.max_inflight_messages_set(WINDOW)
    client.connect("127.0.0.1", port)
    client.loop_start()
    begun_s, cpu_s = time.perf_counter(), time.process_time()
    window: list[Any] = []
    for topic, payload in rows:
        window.append(client.publish(topic, payload, qos=1))
        if len(window) >= WINDOW:
            window.pop(0).wait_for_publish()
    for sent in window:
        sent.wait_for_publish()
    found = {"seconds": time.perf_counter() - begun_s, "cpu_s": time.process_time() - cpu_s}
    client.disconnect()
    client.loop_stop()
    return found


WAYS: dict[str, Callable[[Path, int], dict[str, float]]] = {
    "plain": _plain,
    "ours": lambda folder, port: _ours(folder, port, has_alarms=False),
    "live": lambda folder, port: _ours(folder, port, has_alarms=True),
}

if __name__ == "__main__":
    print(json.dumps(WAYS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
