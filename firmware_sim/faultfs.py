"""A file system that fails on request, and forgets what was never synced when the power is cut.

    python -m firmware_sim.faultfs ROOT MOUNT      root and /dev/fuse; nothing to install

Orders come as JSON lines on standard input: {"fail": ["read", "write", "fsync"]} answers those
with EIO, and everything with "all"; {"read_only": true} every change with EROFS; {} is well again;
{"end": "cut"} drops what was not durable, {"end": "sync"} keeps everything. It speaks the kernel's
protocol itself.

What lies in ROOT is durable. Work goes on in a copy in memory: the fsync of a file makes its bytes
and its creation durable, as on ext4; a rename or a removal needs the fsync of its folder, which
ext4 would often do unasked. So it forgets at least as much as a disk does, but whole files and
names only: torn sectors and reordered writes are not made.
"""

import ctypes
import errno
import json
import os
import shutil
import stat
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IN_HEADER = struct.Struct("<IIQQIIIHH")
OUT_HEADER = struct.Struct("<IiQ")
ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
ROOT_NODE = 1
MOST_WRITE_BYTES = 1 << 20
BUFFER_BYTES = MOST_WRITE_BYTES + 8192
BIG_WRITES, MAX_PAGES = 1 << 5, 1 << 22
MINOR = 38
MS_NOSUID_NODEV = 2 | 4
MNT_DETACH = 2
FH_GIVEN = 1
SIZE_GIVEN, MODE_GIVEN, MTIME_GIVEN, MTIME_NOW = 8, 1, 32, 256
CHANGES = {"create", "mkdir", "unlink", "rmdir", "rename", "link", "write", "setattr", "fallocate"}


@dataclass(slots=True)
class Pending:
    """A change of names that is not durable yet."""

    kind: str  # create, mkdir, remove, rename, link
    path: str
    target: str = ""  # where a rename goes to, what a link is another name of
    inode: int = 0


@dataclass(slots=True)
class Trouble:
    """What is wrong at present."""

    fail: frozenset[str] = frozenset()
    is_read_only: bool = False


class Durable:
    """What would be there after a power cut, and what has yet to be made so."""

    def __init__(self, root: Path, work: Path) -> None:
        self._root, self._work = str(root), str(work)
        self._pending: list[Pending] = []
        self._homes: dict[int, str] = {}  # inode of the copy -> path that is durable
        self._dirty: dict[int, tuple[int, int]] = {}
        shutil.copytree(root, work, dirs_exist_ok=True, symlinks=True)
        for folder, _, names in os.walk(work):
            for name in names:
                path = Path(folder) / name
                self._homes[path.stat().st_ino] = str(path)[len(self._work) :]

    def note(self, kind: str, path: str, target: str = "", inode: int = 0) -> None:
        """Remember a change of names; a file that lost its last name is of no more interest."""
        self._pending.append(Pending(kind, path, target, inode))
        if kind == "remove" and self._homes.get(inode) == path:
            del self._homes[inode]

    def wrote(self, inode: int, start: int, end: int) -> None:
        """Remember that bytes changed."""
        low, high = self._dirty.get(inode, (start, end))
        self._dirty[inode] = (min(low, start), max(high, end))

    def sync_file(self, descriptor: int) -> None:
        """Make a file's bytes durable, and that it was created."""
        facts = os.fstat(descriptor)
        for change in [item for item in self._pending if item.inode == facts.st_ino]:
            if change.kind == "create":
                self._apply(change)
        home = self._homes.get(facts.st_ino)
        low, high = self._dirty.pop(facts.st_ino, (0, 0))
        if home is None:
            return
        with open(self._root + home, "r+b") as durable:  # noqa: PTH123 - paths are plain text here
            while low < min(high, facts.st_size):
                piece = os.pread(descriptor, min(1 << 20, facts.st_size - low), low)
                low += os.pwrite(durable.fileno(), piece, low)
            durable.truncate(facts.st_size)

    def sync_folder(self, path: str) -> None:
        """Make all changes of names in a folder durable."""
        for change in tuple(self._pending):
            if path in (_folder(change.path), _folder(change.target)):
                self._apply(change)

    def sync_all(self) -> None:
        """Make everything durable, as an orderly unmount does."""
        shutil.rmtree(self._root)
        shutil.copytree(self._work, self._root, symlinks=True)

    def _apply(self, change: Pending) -> None:
        self._pending.remove(change)
        path, target = self._root + change.path, self._root + change.target
        if change.kind in ("create", "mkdir"):
            folder = path if change.kind == "mkdir" else _folder(path)
            Path(folder).mkdir(parents=True, exist_ok=True)
            if change.kind == "create" and change.inode not in self._homes:
                Path(path).touch()
                self._homes[change.inode] = change.path
        elif change.kind == "link":
            if os.path.lexists(target) and not os.path.lexists(path):
                Path(_folder(path)).mkdir(parents=True, exist_ok=True)
                os.link(target, path)
                self._homes[change.inode] = change.path
        elif not os.path.lexists(path):
            return  # it was never durable
        elif change.kind == "remove":
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)  # noqa: PTH112, PTH108
        else:
            Path(_folder(target)).mkdir(parents=True, exist_ok=True)
            os.replace(path, target)  # noqa: PTH105
            self._moved(change.path, change.target)

    def _moved(self, old: str, new: str) -> None:
        for inode, home in self._homes.items():
            if home == old or home.startswith(old + "/"):
                self._homes[inode] = new + home[len(old) :]


@dataclass(slots=True)
class Names:
    """The kernel's node numbers and where each lies."""

    places: dict[int, tuple[int, str]] = field(default_factory=dict)
    numbers: dict[tuple[int, str], int] = field(default_factory=dict)
    last: int = ROOT_NODE

    def path(self, node: int) -> str:
        """Give the path of a node from the root, empty for the root itself."""
        parts = []
        while node != ROOT_NODE:
            if node not in self.places:
                raise FileNotFoundError(errno.ENOENT, "node is gone")
            node, name = self.places[node]
            parts.append(name)
        return "".join(f"/{name}" for name in reversed(parts))

    def number(self, parent: int, name: str) -> int:
        """Give the node of a name in a folder."""
        if (parent, name) not in self.numbers:
            self.last += 1
            self.numbers[parent, name] = self.last
            self.places[self.last] = (parent, name)
        return self.numbers[parent, name]

    def forget(self, parent: int, name: str) -> None:
        """A name was removed: whoever comes under it later is another."""
        self.numbers.pop((parent, name), None)

    def move(self, old: tuple[int, str], new: tuple[int, str]) -> None:
        """A name was changed."""
        self.forget(*new)
        node = self.numbers.pop(old, 0)
        if node:
            self.numbers[new] = node
            self.places[node] = new


class FaultFs:
    """Answers the kernel, one request after the other."""

    def __init__(self, root: Path, work: Path, device: int) -> None:
        self.trouble = Trouble()
        self.lock = threading.Lock()
        self.durable = Durable(root, work)
        self._root, self._work, self._device = root, str(work), device
        self._names = Names()
        self._listings: dict[int, bytes] = {}
        self._calls: Mapping[int, tuple[str, Callable[[int, bytes], bytes]]] = {
            1: ("lookup", self._lookup),
            3: ("getattr", self._getattr),
            4: ("setattr", self._setattr),
            9: ("mkdir", self._mkdir),
            10: ("unlink", self._remove),
            11: ("rmdir", self._remove),
            12: ("rename", lambda node, body: self._rename(node, body, 8)),
            13: ("link", self._link),
            14: ("open", self._open),
            15: ("read", self._read),
            16: ("write", self._write),
            17: ("statfs", self._statfs),
            18: ("release", self._release),
            20: ("fsync", self._fsync),
            25: ("flush", lambda _node, _body: b""),
            26: ("init", self._init),
            27: ("opendir", self._opendir),
            28: ("readdir", self._readdir),
            29: ("releasedir", self._releasedir),
            30: ("fsync", self._fsyncdir),
            35: ("create", self._create),
            43: ("fallocate", self._fallocate),
            45: ("rename", lambda node, body: self._rename(node, body, 16)),
        }

    def serve(self) -> None:
        """Answer until the file system is unmounted."""
        while True:
            try:
                request = os.read(self._device, BUFFER_BYTES)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                    continue
                return  # ENODEV: unmounted
            _, opcode, unique, node, *_ = IN_HEADER.unpack_from(request)
            if opcode not in (2, 36, 42):  # FORGET, INTERRUPT, BATCH_FORGET want no answer
                self._reply(unique, *self._answer(opcode, node, request[IN_HEADER.size :]))

    def _reply(self, unique: int, code: int, content: bytes) -> None:
        head = OUT_HEADER.pack(OUT_HEADER.size + len(content), -code, unique)
        try:
            os.write(self._device, head + content)
        except OSError as error:
            if error.errno != errno.ENOENT:  # the caller was killed meanwhile
                raise

    def _answer(self, opcode: int, node: int, body: bytes) -> tuple[int, bytes]:
        if opcode not in self._calls:
            return errno.ENOSYS, b""
        name, call = self._calls[opcode]
        with self.lock:
            if self.trouble.fail & {name, "all"}:
                return errno.EIO, b""
            if self.trouble.is_read_only and self._is_change(name, body):
                return errno.EROFS, b""
            try:
                return 0, call(node, body)
            except OSError as error:
                return error.errno or errno.EIO, b""

    @staticmethod
    def _is_change(name: str, body: bytes) -> bool:
        if name == "open":
            return bool(struct.unpack_from("<I", body)[0] & (os.O_WRONLY | os.O_RDWR))
        return name in CHANGES

    def _place(self, node: int) -> str:
        return self._work + self._names.path(node)

    def _init(self, _node: int, body: bytes) -> bytes:
        _, minor, readahead, flags = struct.unpack_from("<IIII", body)
        wanted = flags & (BIG_WRITES | MAX_PAGES)
        pages = MOST_WRITE_BYTES // 4096
        return struct.pack(
            "<IIIIHHIIHHI28x",
            *(7, min(minor, MINOR), readahead, wanted, 16, 12, MOST_WRITE_BYTES, 1, pages, 0, 0),
        )

    def _entry(self, parent: int, name: str) -> bytes:
        facts = os.lstat(f"{self._place(parent)}/{name}")
        return struct.pack("<QQQQII", self._names.number(parent, name), 0, 0, 0, 0, 0) + _attr(
            facts
        )

    def _lookup(self, node: int, body: bytes) -> bytes:
        return self._entry(node, _text(body))

    def _getattr(self, node: int, body: bytes) -> bytes:
        flags, _, handle = struct.unpack_from("<IIQ", body)
        facts = os.fstat(handle) if flags & FH_GIVEN else os.lstat(self._place(node))
        return struct.pack("<QII", 0, 0, 0) + _attr(facts)

    def _setattr(self, node: int, body: bytes) -> bytes:
        valid, _, _, size, _, _, mtime = struct.unpack_from("<IIQQQQQ", body)
        mtime_part, mode = (
            struct.unpack_from("<I", body, 60)[0],
            struct.unpack_from("<I", body, 68)[0],
        )
        place = self._place(node)
        if valid & SIZE_GIVEN:
            os.truncate(place, size)
            self.durable.wrote(os.lstat(place).st_ino, size, size)
        if valid & MODE_GIVEN:
            os.chmod(place, stat.S_IMODE(mode))  # noqa: PTH101
        if valid & MTIME_NOW:
            os.utime(place)
        elif valid & MTIME_GIVEN:
            at_ns = mtime * 10**9 + mtime_part
            os.utime(place, ns=(at_ns, at_ns))
        return struct.pack("<QII", 0, 0, 0) + _attr(os.lstat(place))

    def _mkdir(self, node: int, body: bytes) -> bytes:
        mode, name = struct.unpack_from("<I", body)[0], _text(body[8:])
        os.mkdir(f"{self._place(node)}/{name}", mode)  # noqa: PTH102
        self.durable.note("mkdir", f"{self._names.path(node)}/{name}")
        return self._entry(node, name)

    def _create(self, node: int, body: bytes) -> bytes:
        flags, mode = struct.unpack_from("<II", body)
        name = _text(body[16:])
        place = f"{self._place(node)}/{name}"
        is_new = not os.path.lexists(place)
        handle = os.open(place, _usable(flags) | os.O_CREAT, mode)
        if is_new:
            inode = os.fstat(handle).st_ino
            self.durable.note("create", f"{self._names.path(node)}/{name}", inode=inode)
        return self._entry(node, name) + struct.pack("<QII", handle, 0, 0)

    def _remove(self, node: int, body: bytes) -> bytes:
        name = _text(body)
        place = f"{self._place(node)}/{name}"
        inode = os.lstat(place).st_ino
        os.rmdir(place) if os.path.isdir(place) else os.unlink(place)  # noqa: PTH106, PTH108, PTH112
        self.durable.note("remove", f"{self._names.path(node)}/{name}", inode=inode)
        self._names.forget(node, name)
        return b""

    def _rename(self, node: int, body: bytes, names_at: int) -> bytes:
        folder = struct.unpack_from("<Q", body)[0]
        old, new = body[names_at:].split(b"\0")[:2]
        before, after = (node, os.fsdecode(old)), (folder, os.fsdecode(new))
        paths = [f"{self._names.path(parent)}/{name}" for parent, name in (before, after)]
        os.rename(self._work + paths[0], self._work + paths[1])  # noqa: PTH104
        self.durable.note("rename", paths[0], paths[1])
        self._names.move(before, after)
        return b""

    def _link(self, node: int, body: bytes) -> bytes:
        old, name = self._names.path(struct.unpack_from("<Q", body)[0]), _text(body[8:])
        new = f"{self._names.path(node)}/{name}"
        os.link(self._work + old, self._work + new)
        self.durable.note("link", new, old, os.lstat(self._work + new).st_ino)
        return self._entry(node, name)

    def _open(self, node: int, body: bytes) -> bytes:
        flags = struct.unpack_from("<I", body)[0]
        return struct.pack("<QII", os.open(self._place(node), _usable(flags)), 0, 0)

    def _read(self, _node: int, body: bytes) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", body)
        return os.pread(handle, size, offset)

    def _write(self, _node: int, body: bytes) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", body)
        written = os.pwrite(handle, body[40 : 40 + size], offset)
        self.durable.wrote(os.fstat(handle).st_ino, offset, offset + written)
        return struct.pack("<II", written, 0)

    def _fallocate(self, _node: int, body: bytes) -> bytes:
        handle, offset, length, mode = struct.unpack_from("<QQQI", body)
        if mode:
            raise OSError(errno.EOPNOTSUPP, "mode")
        os.posix_fallocate(handle, offset, length)
        return b""

    def _fsync(self, _node: int, body: bytes) -> bytes:
        self.durable.sync_file(struct.unpack_from("<Q", body)[0])
        return b""

    def _fsyncdir(self, node: int, _body: bytes) -> bytes:
        self.durable.sync_folder(self._names.path(node))
        return b""

    def _release(self, _node: int, body: bytes) -> bytes:
        os.close(struct.unpack_from("<Q", body)[0])
        return b""

    def _statfs(self, _node: int, _body: bytes) -> bytes:
        s = os.statvfs(self._root)
        sizes = (s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree)
        return struct.pack("<QQQQQIIII24x", *sizes, s.f_bsize, s.f_namemax, s.f_frsize, 0)

    def _opendir(self, node: int, _body: bytes) -> bytes:
        place = self._place(node)
        entries = [(".", os.lstat(place)), ("..", os.lstat(place))]
        entries += [(entry.name, entry.stat(follow_symlinks=False)) for entry in os.scandir(place)]
        listing = bytearray()
        for name, facts in entries:
            raw = os.fsencode(name)
            size = 24 + (len(raw) + 7) // 8 * 8
            head = struct.pack(
                "<QQII", facts.st_ino, len(listing) + size, len(raw), facts.st_mode >> 12
            )
            listing += (head + raw).ljust(size, b"\0")
        handle = max(self._listings, default=0) + 1
        self._listings[handle] = bytes(listing)
        return struct.pack("<QII", handle, 0, 0)

    def _readdir(self, _node: int, body: bytes) -> bytes:
        handle, offset, size = struct.unpack_from("<QQI", body)
        rest, taken = self._listings[handle][offset:], 0
        while taken < len(rest):
            length = struct.unpack_from("<I", rest, taken + 16)[0]
            step = 24 + (length + 7) // 8 * 8
            if taken + step > size:
                break
            taken += step
        return rest[:taken]

    def _releasedir(self, _node: int, body: bytes) -> bytes:
        self._listings.pop(struct.unpack_from("<Q", body)[0], None)
        return b""


def mount(target: Path) -> int:
    """Mount an empty hull on a folder and give the descriptor that its requests come from.

    Raises:
        OSError: not root, or the kernel has no FUSE.
    """
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    libc = ctypes.CDLL(None, use_errno=True)
    words = (b"faultfs", os.fsencode(target), b"fuse.faultfs", MS_NOSUID_NODEV, options.encode())
    if libc.mount(*words):
        code = ctypes.get_errno()
        raise OSError(code, f"mount {target}: {os.strerror(code)}")
    return device


def unmount(target: Path) -> None:
    """Take it away, whoever still uses it."""
    ctypes.CDLL(None).umount2(os.fsencode(target), MNT_DETACH)


def main() -> int:
    """Serve ROOT on MOUNT until an order ends it; prints a line once it can be used."""
    root, target = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    work = Path(tempfile.mkdtemp(prefix="faultfs-", dir="/dev/shm"))
    fs = FaultFs(root, work, mount(target))
    server = threading.Thread(target=fs.serve, daemon=True)
    server.start()
    print("mounted", flush=True)
    try:
        for line in sys.stdin:
            order: dict[str, Any] = json.loads(line)
            with fs.lock:
                if "end" in order:
                    if order["end"] == "sync":
                        fs.durable.sync_all()
                    break
                fs.trouble = Trouble(
                    frozenset(order.get("fail", ())), order.get("read_only", False)
                )
            print("done", flush=True)
    finally:
        unmount(target)
        server.join(5.0)
        shutil.rmtree(work, ignore_errors=True)
    return 0


def _attr(facts: os.stat_result) -> bytes:
    times = (facts.st_atime_ns, facts.st_mtime_ns, facts.st_ctime_ns)
    return ATTR.pack(
        *(facts.st_ino, facts.st_size, facts.st_blocks),
        *(at_ns // 10**9 for at_ns in times),
        *(at_ns % 10**9 for at_ns in times),
        *(facts.st_mode, facts.st_nlink, facts.st_uid, facts.st_gid, 0, 4096, 0),
    )


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _usable(flags: int) -> int:
    """Read and write whatever was asked for: the kernel reads for who only writes."""
    return flags & (os.O_TRUNC | os.O_EXCL) | os.O_RDWR


def _text(name: bytes) -> str:
    return os.fsdecode(name.split(b"\0", 1)[0])


if __name__ == "__main__":
    sys.exit(main())
