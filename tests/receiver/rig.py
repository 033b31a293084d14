"""A receiver on a wire of the test's own, and a device that is made of a few messages."""

import base64
import hashlib
import json
import queue
import threading
import time

from agent.core import wire
from agent.core.clock import RealClock, SimClock
from agent.core.store import Store
from agent.core.wire import Topics
from agent.delivery.config import BrokerConfig
from agent.delivery.session import Acked, Lost, Received
from agent.evidence.keys import DeviceKey
from agent.receiver.config import ReceiverConfig
from agent.receiver.files import Files
from agent.receiver.index import FILE_NAME, contents
from agent.receiver.schema import RECEIVER_MIGRATIONS
from agent.receiver.service import Receiver
from tests.evidence.handover import DEVICE, SITE, clip_id, sealed

WAIT_S = 10.0


def fid(seed) -> str:
    return hashlib.sha256(f"fid {seed}".encode()).hexdigest()[:32]


class Device:
    """A registered device with its key; says what a device would say."""

    def __init__(self, folder, name=DEVICE):
        self.name = name
        self.key = DeviceKey.load_or_create(folder / f"{name}.key")
        self.folder = folder
        self.topics = Topics(SITE, name)

    def register(self, devices):
        devices.mkdir(exist_ok=True)
        (devices / f"{self.name}.pub").write_bytes(self.key.public.pem)

    def clip(self, seed=0, key=None, contents=None, **changes):
        """Seal a hand-over; gives its contents and signed manifest."""
        number = clip_id((self.name, seed))
        contents = contents or {"clip-1.mp4": b"video %r" % seed * 400}
        facts = {"clip_id": number, "device": self.name} | changes
        folder = self.folder / "clips" / f"{number}-{len(list(self.folder.rglob('manifest.json')))}"
        _, signed = sealed(folder, contents, key or self.key, **facts)
        return contents, signed

    def offer(self, contents, signed, name="clip-1.mp4", number=None, **changes):
        entry = next(item for item in payload(signed)["files"] if item["name"] == name)
        document = {
            "sv": 1,
            "fid": number or fid((self.name, name, entry["sha256"])),
            "device": self.name,
            "name": name,
            "size_bytes": len(contents[name]),
            "sha256": entry["sha256"],
            "chunk_bytes": 65_536,
            "leaf_root": entry["leaf_root"],
            "event_ids": ["e" * 32],
            "manifest": signed,
        }
        return document | changes

    def envelope(self, number, kind="event/zone_enter", body=None, **changes):
        document = {
            "sv": 1,
            "id": clip_id((self.name, "message", number)),
            "device": self.name,
            "boot": 1,
            "lane": "alarm",
            "seq": number,
            "t_utc_ms": 1_700_000_000_000,
            "clock": {"source": "ntp", "error_ms": 1},
            "mono_ms": 5,
            "kind": kind,
            "body": event(number) if body is None else body,
        }
        return document | changes


def event(number, state="closed", **changes):
    document = {
        "event_id": clip_id(("event", number)),
        "camera": "west",
        "kind": "zone_enter",
        "rule": "crossing",
        "state": state,
        "start_utc_ms": 1_700_000_000_000,
        "end_utc_ms": 1_700_000_005_000 if state == "closed" else None,
        "label": "person",
        "score": 0.8,
        "tracks": [1],
        "measured": {"dwell_s": 5.0},
        "model": "m",
        "reason": "",
    }
    return document | changes


def payload(signed):
    return json.loads(base64.b64decode(signed["payload"]))


def done(offer, **changes):
    return {name: offer[name] for name in ("sv", "fid", "size_bytes", "sha256")} | changes


def chunks(content, size=1000):
    return [(at, content[at : at + size]) for at in range(0, len(content), size)]


class Wire:
    """The far end of a session: what the test puts in is polled, what is published is kept."""

    receive_maximum = 20
    max_packet_bytes = 1 << 20
    session_present = True

    def __init__(self):
        self.inbox = queue.Queue()
        self.sent = []
        self.subscribed = []
        self.polls = 0
        self.closed = 0
        self.has_acks = True
        self._token = 0

    def connect(self):
        pass

    def subscribe(self, topics):
        self.subscribed += topics

    def publish(self, topic, payload, *, is_retained=False):
        self._token += 1
        self.sent.append((topic, payload))
        if self.has_acks:
            self.inbox.put(Acked(self._token, 0))
        return self._token

    def poll(self, timeout_s):
        events = []
        try:
            events.append(self.inbox.get(timeout=min(timeout_s, 0.01)))
            while True:
                events.append(self.inbox.get_nowait())
        except queue.Empty:
            self.polls += not events
        return events

    def close(self):
        self.closed += 1


class Rig:
    """A receiver in a thread on a `Wire`."""

    def __init__(self, folder, **changes):
        self.folder = folder
        self.store_dir = folder / "centre"
        self.store_dir.mkdir(exist_ok=True)
        self.clock = RealClock()
        self.config = config(folder, **changes)
        self.key = DeviceKey.load_or_create(self.store_dir / "receiver.key")
        self.device = Device(folder)
        self.device.register(self.config.devices_dir)
        self.store = Store(self.store_dir / FILE_NAME, RECEIVER_MIGRATIONS, self.clock)
        self.store.open()
        self.wire = Wire()
        self.receiver = Receiver(self.config, lambda: self.wire, self.store, self.key, self.clock)
        self.failure = None
        self.turns = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            self.receiver.run(self._stop, self._progress)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            self.failure = error

    def _progress(self):
        self.turns += 1

    def close(self):
        self.quiet()
        self._stop.set()
        self._thread.join(WAIT_S)
        self.store.close()
        assert not self._thread.is_alive()
        assert self.failure is None

    def send(self, part, content, device=DEVICE):
        content = wire.encode(content) if isinstance(content, dict) else content
        self.wire.inbox.put(Received(f"outpost/1/{SITE}/{device}/{part}", content))

    def lose(self):
        self.wire.inbox.put(Lost("the test cut it"))

    def quiet(self):
        """Wait until everything that was sent has been dealt with."""
        until_s = time.monotonic() + WAIT_S
        while time.monotonic() < until_s:
            polls = self.wire.polls
            time.sleep(0.02)
            still = self.wire.inbox.empty() and self.wire.polls > polls + 1
            if (still and not self.receiver.is_busy) or self.failure is not None:
                break
        assert self.failure is None

    def answers(self, part):
        """Give the documents sent on topics that end so, checked by their schema."""
        self.quiet()
        schema = {"need": "need", "receipt": "file_receipt"}[part]
        return [
            wire.decode(schema, content)
            for topic, content in self.wire.sent
            if "/file/" in topic and topic.endswith("/" + part)
        ]

    def row_receipts(self, device=DEVICE):
        self.quiet()
        return [
            wire.decode("row_receipt", content)
            for topic, content in self.wire.sent
            if topic == Topics(SITE, device).receipt
        ]

    def transfer(self, offer, content):
        root = f"file/{offer['fid']}"
        self.send(f"{root}/offer", offer)
        for at, part in chunks(content, 65_536):
            self.send(f"{root}/{at}", part)
        self.send(f"{root}/done", done(offer))

    def rejected(self):
        self.quiet()
        return [row["reason"] for row in contents(self.store_dir)["rejected"]]


def config(folder, **changes):
    return ReceiverConfig(
        BrokerConfig(),
        SITE,
        folder / "centre",
        folder / "devices",
        **({"name": "centre-1"} | changes),
    )


class Desk:
    """The file side of a receiver without a wire: calls go straight to `Files`."""

    def __init__(self, folder, clock=None, **changes):
        self.folder = folder
        self.store_dir = folder / "centre"
        self.store_dir.mkdir(exist_ok=True)
        self.config = config(folder, **changes)
        self.key = DeviceKey.load_or_create(self.store_dir / "receiver.key")
        self.clock = clock or SimClock()
        self.store = Store(self.store_dir / FILE_NAME, RECEIVER_MIGRATIONS, self.clock)
        self.store.open()
        self.files = Files(self.store, self.config, self.key, self.clock)

    def crash(self):
        """Go on as a new process would after a kill -9: nothing is synced or closed in order."""
        for assembly in self.files._open.values():
            assembly.close()
        self.files = Files(self.store, self.config, self.key, self.clock)
        self.files.tidy()

    def close(self):
        self.files.close()
        self.store.close()

    def put(self, device, offer, parts):
        for at, part in parts:
            self.files.chunk(device.name, offer["fid"], at, part, device.key.public)

    def done(self, device, offer, **changes):
        """Say done and wait for the check."""
        answer = self.files.done(device.name, done(offer, **changes), device.key.public)
        until_s = time.monotonic() + WAIT_S
        while answer is None and time.monotonic() < until_s:
            for answer, _ in self.files.checked():
                return answer
            if not self.files.is_checking:
                return None
            time.sleep(0.001)
        return answer

    def send(self, device, offer, content):
        answer = self.files.offer(offer, device.key.public)
        if answer.part == "receipt":
            return answer
        self.put(device, offer, chunks(content, 65_536))
        return self.done(device, offer)

    def place(self, device, signed, name="clip-1.mp4"):
        return self.store_dir / SITE / device.name / payload(signed)["clip_id"] / name
