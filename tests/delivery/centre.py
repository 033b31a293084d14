"""A hand-written centre: paho on a real broker and none of the agent's receiver."""

import hashlib
import json
import threading
import time
from collections import defaultdict

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from agent.core.errors import ReceiptInvalid

RECEIVER = "centre-1"
KEYID = "ed25519:" + "0" * 32
RIGHT, WRONG = "A" * 86 + "==", "B" * 86 + "=="


def check_rows(document):
    """Stands for the evidence package: one signature is right, every other is not."""
    if document["sig"] != RIGHT:
        raise ReceiptInvalid("receipt: signed by another key")
    return document["ids"]


def check_file(document, expected):
    if document["sig"] != RIGHT:
        raise ReceiptInvalid("receipt: signed by another key")
    for name, wanted in expected.items():
        if document[name] != wanted:
            raise ReceiptInvalid(f"receipt: {name} {document[name]!r}; wanted {wanted!r}")


def row_receipt(ids, device="cam-1", sig=RIGHT):
    return {
        "sv": 1,
        "device": device,
        "ids": list(ids),
        "stored_utc_ms": 1,
        "receiver": RECEIVER,
        "keyid": KEYID,
        "sig": sig,
    }


def file_receipt(offer, sig=RIGHT, **changes):
    return {
        "sv": 1,
        "fid": offer["fid"],
        "device": offer["device"],
        "sha256": offer["sha256"],
        "size_bytes": offer["size_bytes"],
        "stored_utc_ms": 1,
        "copies": 1,
        "retention_until_utc_ms": 2,
        "receiver": RECEIVER,
        "keyid": KEYID,
        "sig": sig,
    } | changes


class Centre:
    """Listens to a device, keeps everything, and answers as far as it is told to."""

    def __init__(self, port, topics, *, signs=True, takes_files=True, client_id="centre"):
        self.topics = topics
        self.signs = signs
        self.takes_files = takes_files
        self.seen = []  # (topic, payload) of everything, in order
        self.rows = defaultdict(list)  # id -> envelopes
        self.offers, self.files, self.chunks = {}, {}, defaultdict(list)
        self.max_chunk_bytes = 1 << 20
        self.rate = 0
        self.client_id, self.port = client_id, port
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self.client = None
        self.start()

    def start(self):
        self._ready.clear()
        self.client = Client(
            CallbackAPIVersion.VERSION2, self.client_id, protocol=MQTTProtocolVersion.MQTTv5
        )
        self.client.max_inflight_messages_set(1000)
        self.client.reconnect_delay_set(0.1, 0.3)
        self.client.on_connect = lambda *_: self.client.subscribe(f"{self.topics.root}/#", qos=1)
        self.client.on_subscribe = lambda *_: self._ready.set()
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", self.port)
        self.client.loop_start()
        assert self._ready.wait(5), "the centre did not get its subscription"

    def stop(self):
        self.client.disconnect()
        self.client.loop_stop()
        # Breaks paho's reference cycle, so that its sockets close here and not in some other test.
        self.client.on_connect = self.client.on_subscribe = self.client.on_message = None

    def send(self, topic, document):
        payload = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.client.publish(topic, payload, qos=1)

    def ids(self):
        with self._lock:
            return set(self.rows)

    def bodies(self, kind):
        with self._lock:
            return [
                envelopes[0]["body"]
                for envelopes in self.rows.values()
                if envelopes[0]["kind"] == kind
            ]

    def _on_message(self, client, _userdata, message):
        with self._lock:
            self.seen.append((message.topic, message.payload))
        rest = message.topic.removeprefix(self.topics.root + "/").split("/")
        if rest[0] == "file":
            if self.takes_files:
                self.on_file(rest[1], rest[2], message.payload)
        elif message.payload and rest[0] not in ("receipt", "death", "backfill"):
            self._on_row(json.loads(message.payload))

    def _on_row(self, envelope):
        with self._lock:
            self.rows[envelope["id"]].append(envelope)
        if self.signs and envelope["kind"].startswith("event/"):
            self.send(self.topics.receipt, row_receipt([envelope["id"]]))

    def on_file(self, fid, part, payload):
        if part in ("need", "receipt"):
            return
        if part == "offer":
            self.offers[fid] = json.loads(payload)
            self.files.setdefault(fid, {})
            self.answer(fid)
        elif part == "done":
            self.answer(fid)
        elif fid in self.offers:
            self.chunks[fid].append((int(part), len(payload)))
            self.files[fid][int(part)] = payload

    def answer(self, fid):
        offer = self.offers[fid]
        ranges = self.missing(fid)
        if ranges:
            self.send(self.topics.file(fid, "need"), self.need(fid, ranges))
        else:
            assert hashlib.sha256(self.content(fid)).hexdigest() == offer["sha256"]
            self.send(self.topics.file(fid, "receipt"), file_receipt(offer))

    def need(self, fid, ranges, **more):
        return {
            "sv": 1,
            "fid": fid,
            "ranges": ranges,
            "max_chunk_bytes": self.max_chunk_bytes,
            "rate_bytes_per_s": self.rate,
        } | more

    def missing(self, fid):
        at, ranges = 0, []
        for offset in sorted(self.files[fid]):
            if offset > at:
                ranges.append([at, offset])
            at = max(at, offset + len(self.files[fid][offset]))
        size = self.offers[fid]["size_bytes"]
        return ranges + ([[at, size]] if at < size else [])

    def content(self, fid):
        content = bytearray(self.offers[fid]["size_bytes"])
        for offset, payload in self.files[fid].items():
            content[offset : offset + len(payload)] = payload
        return bytes(content)


def until(condition, timeout_s=10.0):
    """Wait for something to become true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())


class Running:
    """A worker in its thread; an error of it is an error of the test."""

    def __init__(self, worker):
        self.worker = worker
        self.stop_event = threading.Event()
        self.turns = 0
        self.error = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop_event.set()
        self.thread.join(5)
        assert not self.thread.is_alive(), "the worker did not stop"
        if self.error is not None:
            raise self.error

    def _run(self):
        try:
            self.worker.run(self.stop_event, self._progress)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self.error = error

    def _progress(self):
        self.turns += 1
