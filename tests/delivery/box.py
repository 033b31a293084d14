"""A device with sealed clips in its ledger, ready to be sent."""

import hashlib
import random
from pathlib import Path

from agent.core import wire
from agent.core.clock import RealClock
from agent.core.wire import Topics
from agent.delivery.config import BrokerConfig, DeliveryConfig
from agent.delivery.outbox import Outbox
from agent.delivery.transfer import (
    Handover,
    Ledger,
    OutgoingFile,
    Transfers,
    enqueue,
    file_sessions,
)
from tests.delivery.centre import check_file

TOPICS = Topics("plaza", "cam-1")
MANIFEST = {
    "payloadType": "application/vnd.outpost.manifest+json",
    "payload": "e30=",
    "signatures": [{"keyid": "ed25519:" + "0" * 32, "sig": "A" * 86 + "=="}],
}
ROOT = "0" * 64


class Box:
    """A device's store and folder with sealed clips."""

    def __init__(self, store, folder):
        self.store, self.folder, self.clock = store, folder, RealClock()
        self.outbox = Outbox(store, TOPICS, self.clock, 1)
        self.custody = []
        self.ledger = Ledger(store, folder, self.clock, self.note, self.outbox.put_in)
        self.contents = {}

    def note(self, connection, kind, subject, detail):
        assert connection.in_transaction
        wire.canonical(detail)
        self.custody.append((kind, subject))

    def seal(self, **files):
        clip_id = self.clock.new_id()
        outgoing = []
        (self.folder / "clips" / clip_id).mkdir(parents=True)
        for stem, content in files.items():
            name = stem.replace("_", ".")
            (self.folder / "clips" / clip_id / name).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            outgoing.append(OutgoingFile(name, len(content), digest, ROOT))

        def change(connection):
            connection.execute(
                "INSERT INTO event VALUES (?, 'west', 'k', 'r', 'closed', 1, 2, '{}')", (clip_id,)
            )
            connection.execute(
                "INSERT INTO clip (id, event_id, camera, start_utc_ns, end_utc_ns, state)"
                " VALUES (?, ?, 'west', 1, 2, 'sealed')",
                (clip_id, clip_id),
            )
            handover = Handover(clip_id, Path("clips") / clip_id, outgoing, MANIFEST, [clip_id])
            return enqueue(connection, handover, self.clock)

        fids = self.store.write(change)
        self.contents.update(zip(fids, files.values(), strict=True))
        return fids

    def path(self, fid):
        return self.ledger.file(self.ledger.find(fid))

    def state(self, fid):
        return self.ledger.find(fid).state

    def reason(self, fid):
        with self.store.reading() as connection:
            return connection.execute(
                "SELECT reason FROM transfer WHERE fid = ?", (fid,)
            ).fetchone()[0]

    def clip_states(self):
        with self.store.reading() as connection:
            return [row[0] for row in connection.execute("SELECT state FROM clip ORDER BY id")]

    def all_receipted(self):
        with self.store.reading() as connection:
            return not connection.execute(
                "SELECT count(*) FROM transfer WHERE state != 'receipted'"
            ).fetchone()[0]

    def transfers(self, port, **changes):
        config = DeliveryConfig(
            receiver_key_path=self.folder / "r.pub",
            **({"reconnect_max_s": 0.2, "receipt_timeout_s": 0.3} | changes),
        )
        sessions = file_sessions(BrokerConfig(port=port), TOPICS, self.clock)
        return Transfers(sessions, self.ledger, TOPICS, check_file, self.clock, config)


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)
