"""A device with signed clips and the real receiver, each in lockstep with the test."""

import hashlib
from pathlib import Path

from agent.core import wire
from agent.core.clock import SimClock
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.core.wire import Topics
from agent.delivery.config import DeliveryConfig
from agent.delivery.ledger import Handover, Ledger, OutgoingFile, enqueue
from agent.delivery.outbox import Outbox
from agent.delivery.transfer import Transfers
from agent.delivery.uplink import Uplink
from agent.evidence import custody, receipt
from agent.evidence.keys import DeviceKey
from agent.receiver.index import FILE_NAME
from agent.receiver.schema import RECEIVER_MIGRATIONS
from agent.receiver.service import Receiver
from tests.delivery.test_uplink import BIRTH
from tests.evidence.handover import DEVICE, SITE
from tests.fuzz.lockstep import Lockstep
from tests.receiver.rig import Device, config, payload

TOPICS = Topics(SITE, DEVICE)
KEY_NAME = "receiver.key"


class Centre:
    """The receiver with its store."""

    def __init__(self, folder, clock):
        self.folder, self.clock = folder, clock
        self.config = config(folder)
        self.config.store_dir.mkdir(exist_ok=True)
        self.config.devices_dir.mkdir(exist_ok=True)
        self.key = DeviceKey.load_or_create(self.config.store_dir / KEY_NAME)
        self.store = Store(self.config.store_dir / FILE_NAME, RECEIVER_MIGRATIONS, clock)
        self.store.open()
        self.start()

    def start(self):
        self.run = Lockstep(
            lambda sessions: Receiver(self.config, sessions, self.store, self.key, self.clock),
            self.clock,
        )

    def restart(self):
        self.run.close()
        self.start()

    def hear(self, *messages):
        """Give its answers to these messages, when it has dealt with them."""
        return self.run.hear(*messages) + self.run.settle(lambda: self.run.worker.is_busy)

    def place(self, signed, name):
        return self.config.store_dir / SITE / DEVICE / payload(signed)["clip_id"] / name

    def rows(self, table, device=None):
        with self.store.reading() as connection:
            found = [tuple(row) for row in connection.execute(f"SELECT * FROM {table}")]
        return [row for row in found if device is None or device in row]

    def close(self):
        self.run.close()
        self.store.close()


class Box:
    """The device's store, folder and file link."""

    def __init__(self, folder, clock, centre_key):
        self.folder, self.clock, self.centre_key = folder, clock, centre_key
        self.device = Device(folder)
        self.state_dir = folder / "box"
        self.state_dir.mkdir()
        self.store = Store(self.state_dir / "outpost.db", DEVICE_MIGRATIONS, clock)
        self.store.open()
        self.outbox = Outbox(self.store, TOPICS, clock, 1)
        self.ledger = Ledger(self.store, self.state_dir, clock, self.note, self.outbox.put_in)
        self.files = {}  # fid: path, content, signed manifest, name
        self.config = DeliveryConfig(folder / "r.pub", receipt_timeout_s=5.0, reconnect_max_s=0.5)
        self.run = None

    def note(self, connection, kind, subject, detail):
        return custody.append(connection, self.clock, kind, subject, detail)

    def seal(self, **contents):
        """Seal a clip of these files; gives their fids in this order."""
        named = {stem.replace("_", "."): content for stem, content in contents.items()}
        _, signed = self.device.clip(seed=len(self.files), contents=named)
        clip_id = payload(signed)["clip_id"]
        folder = Path("clips") / clip_id
        (self.state_dir / folder).mkdir(parents=True)
        for name, content in named.items():
            (self.state_dir / folder / name).write_bytes(content)
        entries = [
            OutgoingFile(item["name"], item["size_bytes"], item["sha256"], item["leaf_root"])
            for item in payload(signed)["files"]
        ]

        def change(connection):
            connection.execute(
                "INSERT INTO event VALUES (?, 'west', 'k', 'r', 'closed', 1, 2, '{}')", (clip_id,)
            )
            connection.execute(
                "INSERT INTO clip (id, event_id, camera, start_utc_ns, end_utc_ns, state)"
                " VALUES (?, ?, 'west', 1, 2, 'sealed')",
                (clip_id, clip_id),
            )
            handover = Handover(clip_id, folder, entries, signed, ["e" * 32])
            return enqueue(connection, handover, self.clock)

        fids = self.store.write(change)
        for fid, name in zip(fids, named, strict=True):
            self.files[fid] = (self.state_dir / folder / name, named[name], signed, name)
        return fids

    def start(self):
        check = lambda document, wanted: receipt.check_file_receipt(  # noqa: E731
            document, self.centre_key, wanted
        )
        self.run = Lockstep(
            lambda sessions: Transfers(
                sessions, self.ledger, TOPICS, check, self.clock, self.config
            ),
            self.clock,
        )

    def start_uplink(self):
        check = lambda document: receipt.check_row_receipt(  # noqa: E731
            document, self.centre_key, DEVICE
        )
        self.run = Lockstep(
            lambda sessions: Uplink(
                sessions, self.outbox, check, lambda: BIRTH, self.clock, self.config
            ),
            self.clock,
        )

    def restart(self):
        self.run.close()
        self.start()

    def state(self, fid):
        return self.ledger.find(fid).state

    def close(self):
        if self.run is not None:
            self.run.close()
        self.store.close()


class Site:
    """Both, on one simulated clock."""

    def __init__(self, folder):
        self.clock = SimClock()
        self.centre = Centre(folder, self.clock)
        self.box = Box(folder, self.clock, self.centre.key.public)
        self.box.device.register(self.centre.config.devices_dir)

    def close(self):
        self.box.close()
        self.centre.close()


def is_stored(centre, entry):
    """Whether the centre has a file of the box under its name, byte for byte."""
    _, content, signed, name = entry
    place = centre.place(signed, name)
    return place.is_file() and sha256(place.read_bytes()) == sha256(content)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def message(part, document, device=DEVICE):
    content = wire.encode(document) if isinstance(document, dict) else document
    return f"{wire.PREFIX}/{SITE}/{device}/{part}", content
