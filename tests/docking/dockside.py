"""A dock on the bench: real slots' machine, store, keys and files; the centre signs by hand."""

import json
import os
import random
from contextlib import suppress

from agent.core.clock import SimClock
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.delivery.config import DeliveryConfig
from agent.delivery.ledger import Ledger
from agent.docking.config import CopyConfig, DockConfig, WipeConfig
from agent.evidence import custody, receipt
from agent.evidence.centrekeys import CentreKeys
from agent.evidence.keys import DeviceKey
from agent.roles import dock as dock_role
from agent.roles.config import DockRole
from agent.roles.kit import DockKit
from drivers import folder_dock
from firmware_sim.dock import FolderSlot

DEVICE, SITE = "dock-1", "plaza"


class Killed(BaseException):
    """The power is cut."""


class Camera:
    """A body camera's storage."""

    def __init__(self, folder, serial, seed=0):
        self.serial = serial
        self.home = folder / f"camera-{serial}-{seed}"
        self.home.mkdir(parents=True)
        self.slot = None
        self.dice = random.Random(f"{serial}{seed}")
        self.ever = []  # (name, bytes) of all that was ever on it

    @property
    def root(self):
        return self.home if self.slot is None else self.slot.path / "storage"

    def film(self, name, size, content=None):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = self.dice.randbytes(size) if content is None else content
        path.write_bytes(data)
        self.ever.append((name, data))
        return path

    def files(self):
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file() and not path.is_symlink()
        }

    def plug(self, slot, **volume):
        slot.put_storage(self.home, {"serial": self.serial, **volume})
        self.slot = slot

    def pull(self):
        if self.slot is not None:
            self.slot.take()
        self.slot = None


class Watched:
    """A dock whose every look may be the moment at which something happens."""

    def __init__(self, dock):
        self._dock = dock
        self.slots = dock.slots
        self.looks = 0
        self.at = {}  # number of the look: what happens then

    def seen(self, slot):
        self.looks += 1
        self.at.pop(self.looks, lambda: None)()
        return self._dock.seen(slot)

    def link(self, slot):
        return self._dock.link(slot)

    def storage(self, slot):
        return self._dock.storage(slot)


class Dockside:
    """A dock, its cameras and its centre, in one folder."""

    def __init__(self, folder, slots=("1", "2"), copy=None, wipe=None, **settings):
        self.folder = folder
        self.clock = SimClock()
        self.slots = {name: FolderSlot(folder / "dock", name) for name in slots}
        config = folder_dock.Config(folder / "dock", tuple(slots))
        self.centre_key = DeviceKey.load_or_create(folder / "centre" / "receiver.key")
        self.state_dir = folder / "state"
        self.config = DockRole(
            device=DEVICE,
            site=SITE,
            role="dock",
            state_dir=self.state_dir,
            delivery=DeliveryConfig(receiver_key_path=folder / "centre" / "receiver.pub"),
            dock=DockConfig(
                hardware=None,
                copy=CopyConfig(**({"rescue": False} | (copy or {}))),
                wipe=WipeConfig(**({"min_hold_h": 0.0, "min_copies": 1} | (wipe or {}))),
                **settings,
            ),
        )
        self.dock = Watched(folder_dock.build(config, self.clock, None))
        self.store = None
        self.start()

    def start(self):
        """Start the agent; what ran before is gone."""
        if self.store is not None:
            self.store.close()
        self.store = Store(self.state_dir / "outpost.db", DEVICE_MIGRATIONS, self.clock)
        self.store.open()
        key = DeviceKey.load_or_create(self.state_dir / "keys" / "device.key")
        self.key = key.public
        keys = CentreKeys(self.centre_key.public, SITE, self.state_dir / "keys", self._note)
        self.kit = DockKit(
            config=self.config,
            store=self.store,
            key=key,
            centre_keys=keys,
            clock=self.clock,
            boot=1,
            dock=self.dock,
        )
        self.workers = dock_role.slot_workers(self.kit, lambda: {"source": "ntp", "error_ms": 1})
        for worker in self.workers:
            worker.resume()
        self.ledger = Ledger(
            self.store, self.state_dir, self.clock, self.kit.note_custody, lambda *_: None
        )

    def close(self):
        self.store.close()

    def turn(self, times=1, step_s=3.0):
        """Let every slot do what is due, `step_s` apart."""
        for _ in range(times):
            for worker in self.workers:
                worker.turn()
            self.clock.advance(step_s)

    def rest(self, most=40):
        """Turn until nothing changes any more."""
        for _ in range(most):
            before = self.rows("SELECT slot, state, code FROM dock_slot ORDER BY slot")
            self.turn(2)
            if before == self.rows("SELECT slot, state, code FROM dock_slot ORDER BY slot"):
                return
        raise AssertionError(f"no rest: {before}")

    def sign(self, tamper=None, **changes):
        """Have the centre sign for all that waits; `changes` before it signs, `tamper` after."""
        for transfer in self.ledger.waiting(100_000):
            fields = {
                "fid": transfer.fid,
                "device": DEVICE,
                "sha256": transfer.sha256,
                "size_bytes": transfer.size_bytes,
                "stored_utc_ms": self.clock.utc_ns() // 1_000_000,
                "copies": 1,
                "retention_until_utc_ms": 1 << 42,
                "receiver": "centre",
            }
            signed = receipt.sign_file_receipt({**fields, **changes}, self.centre_key)
            self.ledger.receipted(transfer, {**signed, **(tamper or {})})

    def state(self, slot="1"):
        found = self.rows("SELECT state, code FROM dock_slot WHERE slot = ?", slot)
        return found[0] if found else ("empty", "")

    def rows(self, query, *values):
        with self.store.reading() as connection:
            return [tuple(row) for row in connection.execute(query, values)]

    def footage(self):
        """Give what is known of each file, by its name on the camera."""
        names = ("name", "here", "there", "flags", "kept_because", "sha256", "path", "same_as")
        rows = self.rows(f"SELECT {', '.join(names)} FROM footage WHERE derived_from = ''")
        found = [dict(zip(names, row, strict=True)) for row in rows]
        return {row["name"]: row | {"flags": json.loads(row["flags"])} for row in found}

    def sealed(self):
        """Give the bytes of every sealed copy, checked against its signature."""
        found = []
        for folder in sorted((self.state_dir / "footage").glob("*")):
            with suppress(FileNotFoundError):
                found += [path.read_bytes() for path in folder.glob("recording*")]
        return found

    def custody(self, kind):
        query = "SELECT subject, detail FROM custody WHERE kind = ? ORDER BY seq"
        return [(subject, json.loads(detail)) for subject, detail in self.rows(query, kind)]

    def _note(self, kind, subject, detail):
        return self.store.write(
            lambda connection: custody.append(connection, self.clock, kind, subject, detail)
        )


def sparse(path, size):
    """Make a file of holes."""
    with path.open("wb") as stream:
        os.truncate(stream.fileno(), size)
