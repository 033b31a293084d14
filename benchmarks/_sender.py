"""The processes of `goodput`: a device that sends and raises alarms, and a server of PUT."""

import hashlib
import http.client
import json
import logging
import os
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from agent.core.clock import RealClock
from agent.core.errors import IntegrityError
from agent.core.model import Lane, Message
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.delivery.config import BrokerConfig, DeliveryConfig
from agent.delivery.ledger import Handover, Ledger, OutgoingFile, enqueue
from agent.delivery.outbox import Outbox
from agent.delivery.session import Acked, MqttSession, SessionEvent, SessionOptions
from agent.delivery.transfer import Transfers, file_sessions
from agent.delivery.uplink import Uplink
from agent.evidence import manifest, receipt
from agent.evidence.hashing import hash_file
from agent.evidence.keys import DeviceKey, PublicKey
from benchmarks._link import CENTRE_HOST
from benchmarks.backlog import BIRTH, EVENT, TOPICS

BROKER_PORT, PUT_PORT = 1883, 8080
DEVICE_KEY, RECEIVER_KEY = Path("device.key"), Path("store") / "receiver.key"
IDLE_S = 15.0
WARM_S = 2.0
ALARM_EVERY_S = 0.1
LIMIT_S = 400.0
POLL_S = 0.005
BLOCK_BYTES = 256 * 1024
TCP_CONGESTION = 13
CLIP_ID = "c" * 32
NAME = "clip.mp4"


class Timed(MqttSession):
    """A session of the live link that notes how long each alarm took to its acknowledgement."""

    def __init__(self, late_ms: list[float]) -> None:
        super().__init__(BrokerConfig(CENTRE_HOST), SessionOptions(TOPICS.device), RealClock())
        self._late_ms = late_ms
        self._put_ns: dict[int, int] = {}

    def publish(self, topic: str, payload: bytes, *, is_retained: bool = False) -> int:
        """Send, and note when an alarm was put."""
        token = super().publish(topic, payload, is_retained=is_retained)
        if "/event/" in topic:
            self._put_ns[token] = json.loads(payload)["body"]["measured"]["put_ns"]
        return token

    def poll(self, timeout_s: float) -> list[SessionEvent]:
        """Poll, and note what came of alarms."""
        events = super().poll(timeout_s)
        for event in events:
            if isinstance(event, Acked) and event.token in self._put_ns:
                late_ns = time.monotonic_ns() - self._put_ns.pop(event.token)
                self._late_ms.append(late_ns / 1e6)
        return events


class Device:
    """Outbox, live link and file link of an agent, each as a role would run it."""

    def __init__(self, centre: Path, folder: Path) -> None:
        self.clock = RealClock()
        self.late_ms: list[float] = []
        self.folder = folder
        self.key = DeviceKey.load_or_create(centre / DEVICE_KEY)
        centre_key = PublicKey.load((centre / RECEIVER_KEY).with_suffix(".pub"))
        self.store = Store(folder / "outpost.db", DEVICE_MIGRATIONS, self.clock)
        self.store.open()
        self.outbox = Outbox(self.store, TOPICS, self.clock, int(time.time()))
        settings = DeliveryConfig(receiver_key_path=centre / "none")
        broker = BrokerConfig(CENTRE_HOST, BROKER_PORT)
        ledger = Ledger(self.store, folder, self.clock, lambda *_: None, self.outbox.put_in)
        self._uplink = Uplink(
            lambda: Timed(self.late_ms),
            self.outbox,
            lambda told: receipt.check_row_receipt(told, centre_key, TOPICS.device),
            lambda: BIRTH,
            self.clock,
            settings,
        )
        self._transfers = Transfers(
            file_sessions(broker, TOPICS, self.clock),
            ledger,
            TOPICS,
            lambda told, wanted: receipt.check_file_receipt(told, centre_key, wanted),
            self.clock,
            settings,
        )
        self._stop = threading.Event()
        workers = (self._uplink, self._transfers)
        self._threads = [
            threading.Thread(target=worker.run, args=(self._stop, lambda: None))
            for worker in workers
        ]
        self._threads.append(threading.Thread(target=self._raise_alarms))

    def start(self) -> None:
        """Connect, and begin to raise alarms."""
        for thread in self._threads:
            thread.start()
        time.sleep(WARM_S)
        self.late_ms.clear()

    def stop(self) -> None:
        """End everything."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.store.close()

    def seal(self, path: Path) -> Callable[[], object]:
        """Sign for a file; what it gives queues the file for sending."""
        entry = manifest.FileEntry(NAME, "clip", "video/mp4", hash_file(path))
        facts = manifest.ManifestFacts(
            clip_id=self.clock.new_id(),
            device=TOPICS.device,
            site=TOPICS.site,
            camera="gate",
            event_ids=(self.clock.new_id(),),
            kind="zone_enter",
            rule="in",
            model="m",
            start_utc_ms=1,
            end_utc_ms=2,
            missing_ms=0,
            clock={"source": "ntp", "error_ms": 1},
            camera_offset_ms=None,
            sources=(),
            custody_seq=0,
            custody_hash="0" * 64,
        )
        signed = manifest.seal(path.parent, facts, [entry], self.key, self.clock)
        told = next(item for item in manifest.read(signed, self.key.public)["files"])
        file = OutgoingFile(NAME, *(told[name] for name in ("size_bytes", "sha256", "leaf_root")))
        folder = path.parent.relative_to(self.folder)
        handover = Handover(facts.clip_id, folder, [file], signed, facts.event_ids)
        return lambda: self.store.write(lambda rows: enqueue(rows, handover, self.clock))

    @property
    def is_sent(self) -> bool:
        """Whether the centre has signed for every file."""
        with self.store.reading() as connection:
            wanted = "SELECT 1 FROM transfer WHERE state != 'receipted' LIMIT 1"
            return connection.execute(wanted).fetchone() is None

    def _raise_alarms(self) -> None:
        while not self._stop.wait(ALARM_EVERY_S):
            body = {**EVENT, "event_id": self.clock.new_id()}
            body["measured"] = {"put_ns": time.monotonic_ns()}
            self.outbox.put(Message(Lane.ALARM, "event/zone_enter", body))


def device(way: str, centre: Path, size_bytes: int) -> dict[str, float]:
    """Send a file of noise one way, or none, under alarms; gives rates and latencies."""
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "clip").mkdir()
        path = folder / "clip" / NAME
        path.write_bytes(random.Random(os.urandom(8)).randbytes(size_bytes))
        agent = Device(centre, folder)
        queue = agent.seal(path) if way == "ours" else None
        agent.start()
        begun_s, cpu_s = time.monotonic(), time.process_time()
        if queue is not None:
            queue()
            while not agent.is_sent and time.monotonic() - begun_s < LIMIT_S:
                time.sleep(POLL_S)
        elif way == "put":
            put(path, size_bytes)
        else:
            time.sleep(IDLE_S)
        took_s = time.monotonic() - begun_s
        late_ms = sorted(agent.late_ms)
        found = {
            "bytes_per_s": size_bytes / took_s,
            "cpu_s": time.process_time() - cpu_s,
            "alarms": len(late_ms),
            "p50_ms": late_ms[len(late_ms) // 2],
            "p95_ms": late_ms[len(late_ms) * 95 // 100],
            "max_ms": late_ms[-1],
        }
        agent.stop()
    return found


def put(path: Path, size_bytes: int) -> None:
    """Send a file with one HTTP PUT."""
    link = http.client.HTTPConnection(CENTRE_HOST, PUT_PORT, timeout=LIMIT_S)
    link.connect()
    with suppress(OSError):
        link.sock.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, b"bbr")
    with path.open("rb") as file:
        link.request("PUT", f"/{NAME}", file, {"Content-Length": str(size_bytes)})
        answer = link.getresponse()
        said = answer.read()
    link.close()
    if answer.status != http.client.CREATED or said.decode() != hash_file(path).sha256:
        raise IntegrityError(f"PUT: status {answer.status}; allowed: 201 and the file's hash")


class _Taker(BaseHTTPRequestHandler):
    """Takes a file, hashes it on the way and answers when it is synced."""

    folder = Path()

    def do_PUT(self) -> None:
        left, found = int(self.headers["Content-Length"]), hashlib.sha256()
        with (self.folder / "taken").open("wb") as file:
            while left and (block := self.rfile.read1(min(left, BLOCK_BYTES))):
                found.update(block)
                file.write(block)
                left -= len(block)
            file.flush()
            os.fsync(file.fileno())
        self.send_response(http.client.CREATED if not left else http.client.BAD_REQUEST)
        self.end_headers()
        self.wfile.write(found.hexdigest().encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


def serve(folder: Path) -> None:
    """Take files until killed."""
    _Taker.folder = folder
    ThreadingHTTPServer(("", PUT_PORT), _Taker).serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]))
    else:
        print(json.dumps(device(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
