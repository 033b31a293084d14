"""A hundred thousand rows after an outage: how fast they leave, beside plain paho; and live ones.

The rows are beats of an hour ago, in the agent's own outbox. Ours reads them from the disk,
publishes with QoS 1 and deletes what is acknowledged: singly, on the broker's word, and in batches,
on signed receipts. Plain paho publishes the same bytes from memory with the same window and forgets
nothing. mosquitto is the broker. Singly `mosquitto_sub` listens; batches are heard by one who only
hears and signs, which is how fast the device is, and by `outpost receive`, which unpacks, checks
and stores every row before it signs. Beside a second backlog an alarm is put forty times a second;
its latency ends at a subscriber.
"""

import base64
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from agent.app import RECEIVER_KEY
from agent.core import wire
from agent.core.clock import NS_PER_S, RealClock, SimClock
from agent.core.model import Lane, Message
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.core.wire import Topics
from agent.delivery import dictionary
from agent.delivery.batch import batch_id
from agent.delivery.config import BrokerConfig, DeliveryConfig
from agent.delivery.outbox import Outbox
from agent.delivery.uplink import Uplink, live_sessions
from agent.device import proc
from agent.evidence.keys import DeviceKey, PublicKey
from agent.evidence.receipt import check_row_receipt, sign_row_receipt
from benchmarks._table import markdown
from firmware_sim import broker as broker_sim
from firmware_sim.gate import Gate

ROWS, LIVE_ROWS, WIRE_ROWS = 100_000, 60_000, 10_000
ROUNDS = 2
WINDOW = 64
ALARM_EVERY_S = 0.025
AT_A_TIME = 500
CENTRE_S = 2.0  # until it listens
LIMIT_S = 300.0
TOPICS = Topics("site", "device")
_FOLDERS = ExitStack()
COLUMNS = {
    "plain": "plain paho",
    "single": "Outpost, singly",
    "batches": "Outpost, batches",
    "batches stored": "the same into a receiver",
}
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
    """Measure, and give the tables."""
    if broker_sim.mosquitto_path() is None:
        return "skipped: mosquitto is not installed"
    best: dict[str, dict[str, float]] = {}
    for _ in range(ROUNDS):
        for way in COLUMNS:
            found = _run(way, ROWS)
            if way not in best or found["cpu_s"] < best[way]["cpu_s"]:
                best[way] = found
    live = {way: _run(f"{way} live", LIVE_ROWS) for way in COLUMNS if way != "plain"}
    with _FOLDERS:
        return f"{_speed(best, live)}\n\n{_bytes()}"


def _speed(best: dict[str, dict[str, float]], live: dict[str, dict[str, float]]) -> str:
    ways = list(best.values())
    cpu_us = [item["cpu_s"] / ROWS * 1e6 for item in ways]
    stored_us = ways[-1]["centre_s"] / ROWS * 1e6
    grown = [f"{item['grown_mib']:+.1f}" for item in ways[1:]]
    late = [[f"{item[key]:.0f}" for item in live.values()] for key in ("p50_ms", "p99_ms")]
    rows = [
        (
            "backlog, rows/s",
            *(f"{ROWS / item['seconds']:,.0f}" for item in ways),
            "at least 8,000",
        ),
        ("CPU a row, us", *(f"{item:.0f}" for item in cpu_us), ""),
        (
            "the same, against plain paho",
            *(f"{item / cpu_us[0]:.2f}x" for item in cpu_us),
            "up to 1.2x",
        ),
        ("RSS growth, MiB", "", *grown, "up to +10"),
        ("CPU of the receiver, us a row", "", "", "", f"{stored_us:.0f}", ""),
        (f"alarm beside {LIVE_ROWS:,}, p50, ms", "", *late[0], ""),
        (f"alarm beside {LIVE_ROWS:,}, p99, ms", "", *late[1], "up to 150"),
    ]
    return markdown(["what", *COLUMNS.values(), "bound"], rows)


def _bytes() -> str:
    """Count what a row costs on the wire from the device, MQTT and acknowledgements included."""
    ways = ("single", "batches stored", "batches and dictionary, stored")
    found = {way: _run(way, WIRE_ROWS, is_counted=True)["bytes_up"] / WIRE_ROWS for way in ways}
    rows = [(way, f"{size:.0f}", f"{found['single'] / size:.1f}x") for way, size in found.items()]
    return markdown(["form", "bytes a row", "less"], rows)


def _run(way: str, rows: int, *, is_counted: bool = False) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copyfile(_filled(rows), folder / "outpost.db")
        with (
            broker_sim.start("mosquitto", directory=folder / "broker") as broker,
            closing(Gate(broker.port).start()) as gate,
            _centre(folder, broker.port, way) as centre,
        ):
            heard = _Heard(broker.port)
            port = gate.port if is_counted else broker.port
            argv = [sys.executable, "-m", "benchmarks.backlog", way, name, str(port)]
            spent_s = proc.usage(centre.pid).cpu_s
            printed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
            found: dict[str, float] = json.loads(printed.splitlines()[-1])
            spent_s = proc.usage(centre.pid).cpu_s - spent_s
            return found | {"centre_s": spent_s, "bytes_up": gate.bytes_up} | heard.close()


@contextmanager
def _centre(folder: Path, port: int, way: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run who listens: one in C that only hears, one that signs for batches too, a receiver."""
    key = DeviceKey.load_or_create(folder / "centre" / RECEIVER_KEY)
    (folder / "receiver.pub").write_bytes(key.public.pem)
    devices = folder / "devices"
    DeviceKey.load_or_create(devices / f"{TOPICS.device}.key")
    argv = ["mosquitto_sub", "-p", str(port), "-t", "outpost/#", "-q", "0"]
    if "stored" in way:
        argv = [sys.executable, "-m", "agent", "receive", "--broker", f"127.0.0.1:{port}"]
        argv += ["--site", TOPICS.site, "--store", str(folder / "centre")]
        argv += ["--devices", str(devices), "--dictionaries", str(folder / "dictionaries")]
    elif "batches" in way:
        argv = [sys.executable, "-m", "benchmarks.backlog", "signer", str(folder), str(port)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as listening:
        time.sleep(CENTRE_S)
        yield listening
        listening.terminate()


def _sign(folder: Path, port: int) -> dict[str, float]:
    """Sign for every batch and do nothing else, until killed."""
    key = DeviceKey.load_or_create(folder / "centre" / RECEIVER_KEY)
    client = Client(CallbackAPIVersion.VERSION2, "signer", protocol=MQTTProtocolVersion.MQTTv5)

    def sign(_client: Client, _data: Any, message: MQTTMessage) -> None:
        fields: dict[str, object] = {
            "device": TOPICS.device,
            "ids": [batch_id(bytes(message.payload))],
        }
        fields |= {"stored_utc_ms": 1, "receiver": "signer"}
        client.publish(TOPICS.receipt, wire.encode(sign_row_receipt(fields, key)), qos=1)

    client.on_message = sign
    client.connect("127.0.0.1", port)
    client.subscribe(f"{TOPICS.root}/backfill/+", qos=1)
    client.loop_forever()
    return {}


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


def _beat(dice: random.Random) -> dict[str, object]:
    """Give the body of a beat: figures that wander and a head of the custody log, newly signed."""
    head = {"device": "device", "hash": dice.randbytes(32).hex(), "seq": dice.randrange(10**6)}
    camera = {
        "id": "gate",
        "state": "streaming",
        "lag_ms": dice.randrange(90, 190),
        "packets": dice.randrange(10**7),
        "dropped": 0,
        "frames": dice.randrange(10**6),
        "inferences": dice.randrange(10**6),
        "ring_bytes": dice.randrange(5_000_000, 5_500_000),
        "blind": [],
    }
    return {
        "uptime_s": dice.randrange(10**6),
        "cpu_pct": dice.randrange(100, 200) / 10,
        "rss_mib": dice.randrange(1600, 1800) / 10,
        "temperature_c": dice.randrange(40, 60),
        "disk_free_bytes": dice.randrange(20 << 30, 21 << 30),
        "queues": {"alarm": 0, "state": 0, "telemetry": dice.randrange(10**5), "quarantine": 0},
        "files_waiting": dice.randrange(5),
        "cameras": [camera],
        "workers": {"recorder-gate": "running", "uplink": "running", "transfers": "running"},
        "last_receipt_utc_ms": None,
        "custody": {
            "payloadType": "application/vnd.outpost.custody+json",
            "payload": base64.b64encode(json.dumps(head).encode()).decode(),
            "signatures": [
                {
                    "keyid": "ed25519:" + "0" * 32,
                    "sig": base64.b64encode(dice.randbytes(64)).decode(),
                }
            ],
        },
    }


@cache
def _filled(rows: int) -> Path:
    """Give a database with so many rows, made once; it lasts as long as this process."""
    folder = Path(_FOLDERS.enter_context(tempfile.TemporaryDirectory()))
    dice = random.Random(1)
    clock = SimClock(time.time_ns() - 3600 * NS_PER_S)
    store = Store(folder / "outpost.db", DEVICE_MIGRATIONS, clock)
    store.open()
    outbox = Outbox(store, TOPICS, clock, boot=1)

    def some(connection: sqlite3.Connection) -> None:
        for _ in range(AT_A_TIME):
            outbox.put_in(connection, Message(Lane.TELEMETRY, "beat", _beat(dice)))

    for _ in range(rows // AT_A_TIME):
        store.write(some)
        clock.advance(0.1)
    store.close()
    return store.path


def _ours(folder: Path, port: int, *, has_alarms: bool = False, **changes: Any) -> dict[str, float]:
    clock = RealClock()
    store = Store(folder / "outpost.db", DEVICE_MIGRATIONS, clock)
    store.open()
    outbox = Outbox(store, TOPICS, clock, boot=2)
    key_path = folder / "receiver.pub"
    key = PublicKey.load(key_path)
    settings = DeliveryConfig(receiver_key_path=key_path, window=WINDOW, **changes)
    sessions = live_sessions(BrokerConfig(port=port), settings, TOPICS, 2, clock)
    check = lambda document: check_row_receipt(document, key, TOPICS.device)  # noqa: E731
    uplink = Uplink(sessions, outbox, check, lambda: BIRTH, clock, settings)
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


def _with_dictionary(folder: Path, port: int) -> dict[str, float]:
    trained = dictionary.train(dictionary.of_device(folder / "outpost.db"), 16 << 10)
    (folder / "dictionaries").mkdir()
    path = folder / "dictionaries" / "beats"
    path.write_bytes(trained)
    return _ours(folder, port, dictionary_path=path)


WAYS: dict[str, Callable[[Path, int], dict[str, float]]] = {
    "plain": _plain,
    "single": lambda folder, port: _ours(folder, port, batch="off"),
    "batches": _ours,
    "batches stored": _ours,
    "batches and dictionary, stored": _with_dictionary,
    "single live": lambda folder, port: _ours(folder, port, has_alarms=True, batch="off"),
    "batches live": lambda folder, port: _ours(folder, port, has_alarms=True),
    "batches stored live": lambda folder, port: _ours(folder, port, has_alarms=True),
    "signer": _sign,
}

if __name__ == "__main__":
    print(json.dumps(WAYS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
