"""Random sequences of faults at a dock, and what must hold after each of their steps.

    python -m tests.docking.sequences --count 2000 --seed 1

Every byte that was ever on a camera is still on it, or in a sealed copy that its signature
confirms; and nothing goes from a camera but what the centre has validly signed for.
"""

import argparse
import hashlib
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from agent.core.errors import IntegrityError
from agent.docking import names
from agent.evidence import manifest
from agent.evidence.hashing import hash_file
from agent.evidence.verify import envelope_of
from tests.docking.dockside import Camera, Dockside, Killed

CAMERAS, SLOTS = ("BC0001", "BC0002"), ("1", "2")


class Lost(AssertionError):
    """What was promised does not hold."""


class Sequence:
    """One dock and two cameras to which things happen."""

    def __init__(self, folder, seed):
        self.dice = random.Random(seed)
        self.side = Dockside(folder, SLOTS)
        self.cameras = [Camera(folder, serial) for serial in CAMERAS]
        self.centre = set()  # hashes that were validly signed for
        self.excused = set()  # hashes of what was altered or deleted by hand
        self.names = 0
        self.told = []

    def run(self, steps):
        actions = (
            *[self.film] * 3,
            *[self.plug] * 5,
            *[self.turn] * 6,
            *[self.pull_at_a_look] * 3,
            *[self.pull] * 2,
            *[self.kill_at_a_write] * 4,
            *[self.kill] * 2,
            *[self.sign] * 4,
            self.forge,
            self.alter,
            self.restore,
            self.lock,
            self.jump,
            self.delete_by_hand,
            self.copy_another,
        )
        self.film()
        self.plug()
        for _ in range(steps):
            action = self.dice.choice(actions)
            self.told.append(action.__name__)
            try:
                action()
            except Killed:
                self.told.append("killed")
                self.side.start()
            self.check()
        self.finish()

    def close(self):
        self.side.close()

    # What happens.

    def film(self):
        camera = self.dice.choice(self.cameras)
        if camera.slot is not None:
            return
        camera.root.chmod(0o755)
        self.names += 1
        last = self.dice.choice(("MOV_0001.mp4", f"MOV_{self.names:04}.mp4", "été \u202e.mp4"))
        size = self.dice.choice((0, 1, 70_000, 300_000, 300_000, 4 << 20, 9_000_000))
        path = camera.root / "DCIM" / f"{100 + self.names}" / last
        camera.film(str(path.relative_to(camera.root)), size)

    def copy_another(self):
        camera = self.dice.choice(self.cameras)
        if camera.slot is None and camera.ever:
            self.names += 1
            camera.film(f"DCIM/COPY_{self.names}.mp4", 0, self.dice.choice(camera.ever)[1])

    def plug(self):
        away = [camera for camera in self.cameras if camera.slot is None]
        busy = {camera.slot for camera in self.cameras}
        free = [slot for slot in self.side.slots.values() if slot not in busy]
        if away and free:
            self.dice.choice(away).plug(self.dice.choice(free))

    def pull(self):
        self.dice.choice(self.cameras).pull()

    def pull_at_a_look(self):
        camera = self.dice.choice(self.cameras)
        self.side.dock.at[self.side.dock.looks + self.dice.randint(1, 30)] = camera.pull
        self.turn()

    def turn(self):
        self.side.turn(self.dice.randint(1, 12))

    def kill(self):
        self.side.start()

    def kill_at_a_write(self):
        left, is_after = self.dice.randint(1, 12), self.dice.random() < 0.5
        store, plain = self.side.store, self.side.store.write

        def write(call, size_bytes=0):
            nonlocal left
            left -= 1
            if left == 0:
                if is_after:
                    plain(call, size_bytes)
                raise Killed
            return plain(call, size_bytes)

        store.write = write
        try:
            self.turn()
        finally:
            del store.write

    def sign(self):
        for transfer in self.side.ledger.waiting(1000):
            self.centre.add(transfer.sha256)
        self.side.sign()

    def forge(self):
        self.side.sign(
            **self.dice.choice(
                (
                    {"tamper": {"sig": "A" * 86 + "=="}},
                    {"sha256": "0" * 64},
                    {"device": "dock-9"},
                    {"fid": "0" * 32},
                )
            )
        )

    def alter(self):
        """Change bytes of a file on a camera, its times as before."""
        found = self.one_file()
        if found is None or found.stat().st_size == 0:
            return
        times = found.stat()
        self.excused.add(digest(found.read_bytes()))
        place = self.dice.randrange(times.st_size)
        with found.open("r+b") as stream:
            stream.seek(place)
            stream.write(b"\xa5\x5a"[: times.st_size - place])
        os.utime(found, ns=(times.st_atime_ns, times.st_mtime_ns))
        camera = next(one for one in self.cameras if found.is_relative_to(one.root))
        camera.ever.append((str(found.relative_to(camera.root)), found.read_bytes()))

    def delete_by_hand(self):
        found = self.one_file()
        if found is not None and self.dice.random() < 0.3:
            self.excused.add(digest(found.read_bytes()))
            found.unlink()

    def restore(self):
        """A card that brings back what was deleted."""
        camera = self.dice.choice(self.cameras)
        if camera.ever:
            name, data = self.dice.choice(camera.ever)
            path = camera.root / name
            if not path.exists() and os.access(path.parent, os.W_OK) and path.parent.is_dir():
                path.write_bytes(data)

    def lock(self):
        camera = self.dice.choice(self.cameras)
        camera.root.chmod(self.dice.choice((0o555, 0o755)))

    def jump(self):
        self.side.clock.step_wall(self.dice.choice((-86_400 * 400, -7200, 7200, 86_400 * 400)))

    def one_file(self):
        camera = self.dice.choice(self.cameras)
        files = [path for path in camera.root.rglob("*") if path.is_file()]
        return self.dice.choice(sorted(files)) if files else None

    # What must hold.

    def check(self):
        sealed = self.sealed()
        for camera in self.cameras:
            there = {digest(data) for data in camera.files().values()}
            for name, data in camera.ever:
                found = digest(data)
                if found in there | self.excused:
                    continue
                if found not in sealed:
                    raise Lost(f"{camera.serial} {name}: neither there nor in a sealed copy")
                if found not in self.centre:
                    raise Lost(f"{camera.serial} {name}: wiped, and the centre has not signed")

    def sealed(self):
        """Give the hashes of copies that their signatures confirm, and that a row speaks of."""
        found = set()
        rows = self.side.rows("SELECT path FROM footage WHERE here != 'no' AND path != ''")
        for (path,) in rows:
            folder = self.side.state_dir / path
            try:
                document = manifest.read(envelope_of(folder), self.side.key)
                entry = document["files"][0]
                manifest.check_file(hash_file(folder / entry["name"]), entry)
            except (IntegrityError, OSError) as error:
                raise Lost(f"{path}: {error}") from error
            found.add(entry["sha256"])
        return found

    def finish(self):
        """With all faults gone everything comes to rest, and what may go has gone."""
        self.told.append("finish")
        self.side.dock.at.clear()
        for camera in self.cameras:
            camera.pull()
            camera.root.chmod(0o755)
        self.side.clock.step_wall(86_400 * 20_000)  # later than all that was written down
        self.side.turn(2)
        for camera, slot in zip(self.cameras, self.side.slots.values(), strict=True):
            camera.plug(slot)
        for _ in range(3):
            self.side.clock.advance(60)
            self.side.rest(80)
            self.sign()
        self.side.rest(80)
        self.check()
        for camera in self.cameras:
            self.account_for(camera)

    def account_for(self, camera):
        """What is still on a camera has a reason in the rows."""
        query = (
            "SELECT f.name, f.kept_because, f.flags, d.quarantine FROM footage f JOIN dock_session"
            " d ON d.id = f.seen_session_id WHERE f.there = 'yes' AND d.serial = ?"
        )
        known = {row[0]: row for row in self.side.rows(query, camera.serial)}
        for name in camera.files():
            row = known.get(names.shown(os.fsencode(name)))
            if row is None or not any((row[1], row[3], row[2] != "[]")):
                raise Lost(f"{camera.serial} {name}: stays on the camera without a reason: {row}")


def digest(data):
    return hashlib.sha256(data).hexdigest()


def one(seed, steps=25):
    """Run a sequence; Lost if something does not hold, with what had happened."""
    folder = Path(tempfile.mkdtemp(prefix="dock-"))
    sequence = Sequence(folder, seed)
    try:
        sequence.run(steps)
    except Exception as error:
        raise Lost(f"seed {seed}: {error!r} after {sequence.told}") from error
    finally:
        sequence.close()
        for camera in sequence.cameras:
            camera.root.chmod(0o755)
        shutil.rmtree(folder)
    return sequence.told


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=25)
    options = parser.parse_args()
    happened = {}
    for seed in range(options.seed, options.seed + options.count):
        for what in one(seed, options.steps):
            happened[what] = happened.get(what, 0) + 1
        if (seed - options.seed + 1) % 100 == 0:
            print(f"{seed - options.seed + 1} sequences, nothing lost", flush=True)
    print(f"{options.count} sequences, nothing lost: {happened}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
