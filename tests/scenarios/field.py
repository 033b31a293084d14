"""A device and a centre of real parts with a broker between; each may stop, vanish, come back."""

import base64
import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from agent.core.clock import RealClock
from agent.core.model import Event, EventState
from agent.core.store import Store
from agent.core.wire import Topics
from agent.delivery.centrestore import CentreStore
from agent.delivery.config import BrokerConfig, DeliveryConfig
from agent.delivery.ledger import Handover, Ledger, OutgoingFile, enqueue
from agent.delivery.outbox import Outbox
from agent.delivery.transfer import Transfers, file_sessions
from agent.delivery.uplink import Uplink, live_sessions
from agent.device.wants import Wants
from agent.evidence import custody
from agent.evidence.centrekeys import CentreKeys
from agent.evidence.keys import DeviceKey
from agent.receiver import identity, rotate
from agent.receiver.config import ReceiverConfig
from agent.receiver.index import FILE_NAME, contents
from agent.receiver.schema import RECEIVER_MIGRATIONS
from agent.receiver.service import Receiver, sessions
from agent.roles import centreword
from agent.roles.centreword import CentreWord
from agent.vision import lines
from agent.vision.retell import retell
from tests.delivery.centre import Running
from tests.delivery.test_uplink import BIRTH
from tests.evidence.handover import DEVICE, SITE, sealed

TOPICS = Topics(SITE, DEVICE)


def event_line(event_id):
    """Give what the box remembers of an event."""
    return lines.to_line(
        Event(
            event_id=event_id,
            camera="west",
            kind="zone_enter",
            rule="crossing",
            state=EventState.CLOSED,
            start_utc_ns=1_700_000_000 * 10**9,
            end_utc_ns=1_700_000_009 * 10**9,
            label="person",
            score=0.8,
            track_ids=(1,),
            measured={},
            model="m",
            reason="",
        )
    )


class Field:
    """The device's side; `centre` starts the other one."""

    def __init__(self, folder: Path, store: Store, port: int) -> None:
        self.folder, self.store, self.port, self.clock = folder, store, port, RealClock()
        self.outbox = Outbox(store, TOPICS, self.clock, boot=1)
        self.key = DeviceKey.load_or_create(folder / "devices" / f"{DEVICE}.key")
        self.centre_dir = folder / "centre"
        self.centre_dir.mkdir(exist_ok=True)
        self.centre_key = DeviceKey.load_or_create(self.centre_dir / "receiver.key")
        self.keys = self.pinned(self.centre_key.public)
        self.word = CentreWord(self.keys, DEVICE)
        self.ledger = Ledger(store, folder, self.clock, self.note, self.outbox.put_in)
        self._contents = {}

    def note(self, connection, kind, subject, detail):
        return custody.append(connection, self.clock, kind, subject, detail)

    def seal(self, **files):
        """Seal a clip of these files and hand it over; gives their fids."""
        clip_id = self.clock.new_id()
        named = {stem.replace("_", "."): content for stem, content in files.items()}
        folder = self.folder / "clips" / clip_id
        _, signed = sealed(folder, named, self.key, clip_id=clip_id)
        entries = {item["name"]: item for item in _payload(signed)["files"]}
        outgoing = [
            OutgoingFile(name, entry["size_bytes"], entry["sha256"], entry["leaf_root"])
            for name, entry in entries.items()
        ]

        def change(connection):
            connection.execute(
                "INSERT INTO event VALUES (?, 'west', 'k', 'r', 'closed', 1, 2, ?)",
                (clip_id, event_line(clip_id)),
            )
            connection.execute(
                "INSERT INTO clip (id, event_id, camera, start_utc_ns, end_utc_ns, state)"
                " VALUES (?, ?, 'west', 1, 2, 'sealed')",
                (clip_id, clip_id),
            )
            relative = Path("clips") / clip_id
            handover = Handover(clip_id, relative, outgoing, signed, [clip_id])
            return enqueue(connection, handover, self.clock)

        fids = self.store.write(change)
        self._contents.update(zip(fids, named.values(), strict=True))
        return fids

    def transfers(self, port=0, **changes):
        """Give the file link, as a new process would start it."""
        worker = Transfers(
            file_sessions(BrokerConfig(port=port or self.port), TOPICS, self.clock),
            self.ledger,
            TOPICS,
            self.word.file,
            self.clock,
            self.config(**changes),
        )
        return Running(worker)

    def uplink(self, **changes):
        """Give the live link, as a new process would start it."""
        config = self.config(**changes)
        worker = Uplink(
            live_sessions(BrokerConfig(port=self.port), config, TOPICS, 1, self.clock),
            self.outbox,
            self.word.rows,
            lambda: BIRTH,
            self.clock,
            config,
        )
        store = CentreStore(
            self.store, self.folder, self.clock, self.note, self.outbox.put_in, retell
        )
        wants = Wants(TOPICS, centreword.wants(self.keys, self.word, store), self.clock)
        worker.listen(wants.topic, wants.hear)
        return Both(Running(worker), Running(wants))

    def pinned(self, first):
        """Give the centre's keys as a new process would read them."""

        def note(kind, subject, detail):
            return self.store.write(lambda found: self.note(found, kind, subject, detail))

        keys = CentreKeys(first, SITE, self.folder, note)
        keys.open()
        return keys

    def restart(self, first=None):
        """Go on as a new process of the agent would: nothing is known but what is on the disk."""
        self.keys = self.pinned(first or self.keys.all[0])
        self.word = CentreWord(self.keys, DEVICE)

    def config(self, **changes):
        fields = {"reconnect_max_s": 0.2, "receipt_timeout_s": 0.5} | changes
        return DeliveryConfig(self.folder / "r.pub", **fields)

    @contextmanager
    def centre(self, key=None, **changes):
        """Run a receiver on what is left of its store."""
        self.centre_dir.mkdir(exist_ok=True)
        centre = Centre(self, key or self.centre_key, changes)
        try:
            with centre.running:
                yield centre
        finally:
            centre.store.close()

    def wipe_centre(self):
        """Take the centre's disk away; the key, kept elsewhere, comes back."""
        shutil.rmtree(self.centre_dir)

    def path(self, fid):
        return self.ledger.file(self.ledger.find(fid))

    def content(self, fid):
        return self._contents[fid]

    def state(self, fid):
        return self.ledger.find(fid).state

    def states(self):
        with self.store.reading() as connection:
            return [row[0] for row in connection.execute("SELECT state FROM transfer")]

    def clip_states(self):
        with self.store.reading() as connection:
            return [row[0] for row in connection.execute("SELECT state FROM clip ORDER BY id")]

    def custody_kinds(self):
        with self.store.reading() as connection:
            return [row[0] for row in connection.execute("SELECT kind FROM custody ORDER BY seq")]


class Both:
    """Two workers of one link."""

    def __init__(self, *running):
        self.running = running
        self.worker = running[0].worker
        self.wants = running[1].worker

    def __enter__(self):
        for one in self.running:
            one.__enter__()
        return self

    def __exit__(self, *error):
        for one in self.running:
            one.__exit__(*error)


class Centre:
    """One run of a receiver."""

    def __init__(self, field, key, changes):
        self._field = field
        config = ReceiverConfig(
            BrokerConfig(port=field.port),
            SITE,
            field.centre_dir,
            field.folder / "devices",
            **changes,
        )
        rotate.finish(config.store_dir)
        chain = identity.read_rotations(config.store_dir, key, SITE)
        config = replace(config, rotations=chain)
        self.store = Store(config.store_dir / FILE_NAME, RECEIVER_MIGRATIONS, field.clock)
        self.store.open()
        make = sessions(config, field.clock)
        self.running = Running(Receiver(config, make, self.store, key, field.clock))

    def contents(self, what):
        return contents(self._field.centre_dir)[what]

    def lost(self):
        return self.contents("lost_files")

    def receipts(self):
        with self.store.reading() as connection:
            return [json.loads(row[0]) for row in connection.execute("SELECT body FROM receipt")]

    def received_bytes(self):
        """Give how much of the files under way is on the disk or in memory."""
        parts = (self._field.centre_dir / "incoming").rglob("*.part")
        return sum(part.stat().st_size for part in parts)

    def stored(self, fid):
        """Give the bytes that are kept of a file."""
        return (self.folder(fid) / self._field.ledger.find(fid).name).read_bytes()

    def folder(self, fid):
        """Give the folder of a file's hand-over."""
        clip_id = self._field.ledger.find(fid).clip_id
        return self._field.centre_dir / SITE / DEVICE / clip_id


def _payload(signed):
    return json.loads(base64.b64decode(signed["payload"]))
