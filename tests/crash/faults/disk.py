"""Disks that are full, without names, read-only, broken, or forget when the power is cut.

A full disk is a small tmpfs. The rest is a FUSE file system of our own that needs root and
/dev/fuse and no package: device mapper is not in every kernel, and a preloaded library would not
see the writes that SQLite's memory maps and other processes make.
"""

import os
import time

from tests.crash.faults.fault import Fault, needs_program, needs_root
from tests.crash.faults.ground import MIB, Faulty, Tmpfs

AT_WORK_S = (3.0, 6.0)  # on the new ground, before anything goes wrong there
RECOVERS_S = 4.0


class _Tmpfs(Fault):
    lasts_s = (4.0, 10.0)
    is_agent_expected = True
    room_bytes, names = 48 * MIB, 4000

    def needs(self, scene):
        return needs_root() or needs_program("mount", "umount")

    def inject(self, scene, dice):
        self._side = dice.choice(("agent", "agent", "receiver"))
        self._ground = Tmpfs(scene, self._side, self.room_bytes, self.names)
        self._ground.enter()
        time.sleep(dice.uniform(*AT_WORK_S))
        self.fill()
        return f"{self._side}'s disk: {self.what}"

    def heal(self, scene):
        self._ground.free()
        time.sleep(RECOVERS_S)
        self._ground.leave()


class DiskFull(_Tmpfs):
    name = "disk-full"
    about = "not a byte left on the agent's or the receiver's disk; then freed"
    what = "full"

    def fill(self):
        self._ground.fill()


class NoInodes(_Tmpfs):
    name = "no-inodes"
    about = "bytes are left but no inode; then freed"
    what = "no inode left"

    def fill(self):
        self._ground.fill_names()


class _Faulty(Fault):
    lasts_s = (2.0, 8.0)
    is_agent_expected = True

    def needs(self, scene):
        return needs_root() or ("" if os.access("/dev/fuse", os.W_OK) else "needs /dev/fuse")

    def inject(self, scene, dice):
        side = dice.choice(("agent", "agent", "receiver"))
        self._ground = Faulty(scene, side)
        self._ground.enter()
        time.sleep(dice.uniform(*AT_WORK_S))
        return f"{side}'s disk: {self.strike()}"

    def heal(self, scene):
        self._ground.order()
        time.sleep(RECOVERS_S)
        self._ground.leave()


class ReadOnly(_Faulty):
    name = "read-only"
    about = "the agent's or the receiver's disk refuses every change"
    what = "read-only"

    def strike(self):
        self._ground.order(read_only=True)
        return self.what


class EioRead(_Faulty):
    name = "eio-read"
    about = "every read of the agent's or the receiver's disk that is not in memory fails"
    what = "EIO on read"

    def strike(self):
        self._ground.order(fail=["read"])
        return self.what


class EioWrite(_Faulty):
    name = "eio-write"
    about = "every write of the agent's or the receiver's disk fails"
    what = "EIO on write"

    def strike(self):
        self._ground.order(fail=["write"])
        return self.what


class EioSync(_Faulty):
    name = "eio-fsync"
    about = "every fsync of the agent's or the receiver's disk fails"
    what = "EIO on fsync"

    def strike(self):
        self._ground.order(fail=["fsync"])
        return self.what


class PowerCut(_Faulty):
    name = "power-cut"
    about = "agent or receiver ends at once and its disk forgets what was not synced"
    lasts_s = (0.0, 1.0)
    is_agent_expected = False

    def strike(self):
        self._ground.cut()
        return "power cut"

    def heal(self, scene):
        self._ground.back()


FAMILY = (DiskFull, NoInodes, ReadOnly, EioRead, EioWrite, EioSync, PowerCut)
