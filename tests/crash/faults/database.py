"""A database that comes back damaged: bits flipped, the log cut short, the index of it gone."""

import os

from tests.crash import invariant
from tests.crash.faults.fault import Fault

PAGE_BYTES = 4096
GOES_ON_S = 60.0


class _Damage(Fault):
    lasts_s = (0.0, 1.0)
    may_lose = True
    has_steps = False
    has_log = False  # whether the write-ahead log is to be there still

    def inject(self, scene, dice):
        if self.has_log:
            scene.kill("agent")
        else:
            scene.stop("agent", 20.0)  # which brings the log into the database
        invariant.note_known(scene)
        if self.may_lose:
            invariant.note_rows(scene)
            scene.forgiven |= invariant.lost_now(scene)
        return self.damage(scene.database, dice)

    def heal(self, scene):
        scene.start_agent()
        wanted = len(scene.closed_by_log()) + 1

        def works() -> bool:
            scene.keep_up()  # it ends when it meets damage, and mends it at the next start
            return len(scene.closed_by_log()) >= wanted

        self._has_worked = scene.until(works, GOES_ON_S)

    def judge(self, scene):
        return [] if self._has_worked else [f"no event within {GOES_ON_S:.0f} s of the start"]


class FlippedBytes(_Damage):
    name = "db-flipped"
    about = "bytes of the agent's database flipped while it is off"

    def damage(self, database, dice):
        size = database.stat().st_size
        spots = [dice.randrange(size) for _ in range(64)]
        with database.open("r+b") as stream:
            for spot in spots:
                stream.seek(spot)
                byte = stream.read(1)[0]
                stream.seek(spot)
                stream.write(bytes([byte ^ (1 << dice.randrange(8))]))
        return f"64 bytes of {size:,} flipped"


class FlippedHeader(_Damage):
    name = "db-header"
    about = "the first page of the agent's database overwritten"

    def damage(self, database, dice):
        with database.open("r+b") as stream:
            stream.write(dice.randbytes(PAGE_BYTES))
        return "first page overwritten"


class ShortLog(_Damage):
    name = "wal-short"
    about = "the write-ahead log cut at a random byte: what was committed last is gone"
    has_log = True

    def damage(self, database, dice):
        log = database.with_name(database.name + "-wal")
        size = log.stat().st_size if log.exists() else 0
        cut = dice.randrange(size + 1)
        if size:
            os.truncate(log, cut)
        return f"log of {size:,} bytes cut to {cut:,}"


class NoIndex(_Damage):
    name = "shm-gone"
    about = "the index of the log deleted, which SQLite makes anew"
    may_lose = False
    has_log = True

    def damage(self, database, dice):
        database.with_name(database.name + "-shm").unlink(missing_ok=True)
        return "index of the log deleted"


FAMILY = (FlippedBytes, FlippedHeader, ShortLog, NoIndex)
