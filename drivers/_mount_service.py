"""The privileged part of a dock: mounts the storage that hangs in a slot, and nothing else.

    python -m drivers._mount_service --config FILE --user NAME

One connection on standard input, one request, one answer, then it ends: systemd holds the socket
and starts an instance for each request (`systemd/outpost-mount.socket`), so that no privileged
process waits, keeps state or serves two. A request is a word and a slot, `mount 3`; the others are
`rw`, `ro`, `umount` and `eject`, which unmounts and tells the camera so. The asker names neither
device nor folder: both follow from the slot's ports in the configuration, which must be root's.
Only the standard library and three modules beside this one run here.
"""

import argparse
import contextlib
import errno
import fcntl
import json
import os
import pwd
import re
import socket
import stat
import struct
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from drivers import _mounts, _superblock, _usb

BASE = Path("/run/outpost-dock")
DEV = Path("/dev")
TYPES = ("vfat", "exfat")
SLOT = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
REQUEST_BYTES = 256
PATIENCE_S = 5.0
BLKROSET = 0x125D  # linux/fs.h
CDROMEJECT = 0x5309  # linux/cdrom.h; sd sends START STOP UNIT for it
FAT = {"uid": "{uid}", "gid": "{gid}", "umask": "0077", "errors": "remount-ro"}
OPTIONS: Mapping[str, Mapping[str, str]] = {
    "vfat": {**FAT, "utf8": "", "tz": "UTC"},  # its times have no zone: given as they stand there
    "exfat": {**FAT, "iocharset": "utf8"},
    "ext4": {"noload": ""},  # its journal would be played back onto a medium that is read only
}


class RefusedError(Exception):
    """A request that is not done; `code` is what the asker's driver goes by."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be done, and for whom."""

    uid: int
    gid: int
    ports: Mapping[str, Sequence[str]]  # of each slot
    base: Path = BASE
    types: tuple[str, ...] = TYPES
    sys_root: Path = _usb.SYS
    dev: Path = DEV
    table: Path = _mounts.MOUNTINFO


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the connection on standard input; 0 whenever there was an answer to give."""
    options = _options(argv)
    with socket.socket(fileno=os.dup(0)) as connection:
        connection.settimeout(PATIENCE_S)
        try:
            answer = _answer(connection, options)
        except RefusedError as error:
            answer = {"error": error.code, "why": str(error)}
        except OSError as error:
            answer = {"error": "failed", "why": str(error)}
        sys.stderr.write(f"{json.dumps(answer)}\n")
        with contextlib.suppress(OSError):  # whoever asked has gone
            connection.send(json.dumps(answer).encode())
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="mounts the storage in a dock's slots")
    parser.add_argument("--config", type=Path, required=True, help="the agent's; root's file")
    parser.add_argument("--user", required=True, help="who may ask, and whose the files are")
    parser.add_argument("--base", type=Path, default=BASE, help="folder of the mounts")
    parser.add_argument("--types", default=",".join(TYPES), help="file systems that are taken")
    parser.add_argument("--sys", type=Path, default=_usb.SYS)
    parser.add_argument("--dev", type=Path, default=DEV)
    parser.add_argument("--mountinfo", type=Path, default=_mounts.MOUNTINFO)
    return parser.parse_args(argv)


def _answer(connection: socket.socket, options: argparse.Namespace) -> Mapping[str, object]:
    user = pwd.getpwnam(options.user)
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", peer)
    if uid not in (0, user.pw_uid):
        raise RefusedError("refused", f"user {uid} asks; allowed: {options.user}")
    try:
        request = connection.recv(REQUEST_BYTES).decode("ascii")
    except (TimeoutError, UnicodeDecodeError) as error:
        raise RefusedError("refused", f"no request: {error}") from error
    word, _, slot = request.partition(" ")
    rules = Rules(
        user.pw_uid,
        user.pw_gid,
        ports_of(options.config),
        options.base,
        tuple(options.types.split(",")),
        options.sys,
        options.dev,
        options.mountinfo,
    )
    return serve(rules, word, slot)


def ports_of(config: Path) -> dict[str, list[str]]:
    """Read the ports of every slot; RefusedError if others than root may write them."""
    with config.open("rb") as file:
        found = os.fstat(file.fileno())
        if found.st_uid != 0 or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise RefusedError("refused", f"{config}: others than root may write it")
        try:
            slots = tomllib.load(file)["dock"]["hardware"]["slots"]
            return {str(slot["name"]): [str(port) for port in slot["ports"]] for slot in slots}
        except (KeyError, TypeError, ValueError) as error:
            raise RefusedError("refused", f"{config}: no slots with ports: {error!r}") from error


def serve(rules: Rules, word: str, slot: str) -> Mapping[str, object]:
    """Do one request.

    Raises:
        RefusedError: and nothing of the slot is mounted any more, unless it was not to be asked.
    """
    words = {"mount": _mount, "rw": _allow, "ro": _forbid, "umount": _unmount, "eject": _eject}
    does = words.get(word)
    if does is None:
        raise RefusedError("refused", f"{word!r}; allowed: {', '.join(words)}")
    if slot not in rules.ports or not SLOT.fullmatch(slot):
        raise RefusedError("refused", f"slot {slot!r}; allowed: {', '.join(rules.ports)}")
    with _alone(rules, slot):
        return does(rules, slot)


def _mount(rules: Rules, slot: str) -> Mapping[str, object]:
    folder = rules.base / slot
    _clear(folder)
    device = _plugged(rules, slot)
    found, left_out = [], []
    for block in _with_medium(device):
        volume = _volume(rules, block)
        if volume is not None and volume.kind in rules.types:
            found.append((block, volume))
        else:
            left_out.append(f"{block.name}: {volume.kind if volume else 'no file system known'}")
    if not found:
        allowed = f"allowed: {', '.join(rules.types)}"
        why = f"{'; '.join(left_out)}; {allowed}" if left_out else "no medium"
        raise RefusedError("unsupported" if left_out else "empty", f"slot {slot}: {why}")
    _lock(rules, device, is_locked=True)
    try:
        for number, (block, volume) in enumerate(found, 1):
            target = folder if len(found) == 1 else folder / str(number)
            target.mkdir(mode=0o755, exist_ok=True)
            _mount_safely(rules, block, volume.kind, target)
    except BaseException:
        _clear(folder)
        raise
    return {
        "root": str(folder),
        "usb_serial": device.serial,
        "label": next((volume.label for _, volume in found if volume.label), ""),
        "number": found[0][1].number,
        "capacity_bytes": sum(block.size_bytes for block, _ in found),
        "left_out": left_out,
    }


def _allow(rules: Rules, slot: str) -> Mapping[str, object]:
    targets = _still_there(rules, slot)
    _lock(rules, _plugged(rules, slot), is_locked=False)
    try:
        for target in targets:
            _mounts.make_writable(target)
            _check(rules, target, is_read_only=False)
    except OSError as error:
        _forbid(rules, slot)
        if error.errno in (errno.EROFS, errno.EACCES):
            raise RefusedError("readonly", f"slot {slot}: the medium cannot be written") from error
        raise
    return {"root": str(rules.base / slot)}


def _forbid(rules: Rules, slot: str) -> Mapping[str, object]:
    folder = rules.base / slot
    targets = _mounts.below(folder)
    try:
        for target in targets:
            _mounts.make_read_only(target)
            _check(rules, target, is_read_only=True)
    except (OSError, RefusedError) as error:
        _clear(folder)
        why = f"slot {slot}: it did not become read only again and was let go: {error}"
        raise RefusedError("busy", why) from error
    finally:
        with contextlib.suppress(RefusedError):
            _lock(rules, _plugged(rules, slot), is_locked=True)
    return {"root": str(folder)}


def _unmount(rules: Rules, slot: str) -> Mapping[str, object]:
    _clear(rules.base / slot)
    with contextlib.suppress(RefusedError):
        _lock(rules, _plugged(rules, slot), is_locked=False)
    return {}


def _eject(rules: Rules, slot: str) -> Mapping[str, object]:
    _unmount(rules, slot)
    ejected = False
    with contextlib.suppress(RefusedError, OSError):
        for disk in _plugged(rules, slot).disks:
            with _opened(rules, disk) as descriptor:
                fcntl.ioctl(descriptor, CDROMEJECT)
                ejected = True
    return {"ejected": ejected}


def _lock(rules: Rules, device: _usb.Device, *, is_locked: bool) -> None:
    """Have the kernel refuse every write to the device files, whoever writes.

    A second fence behind the read only mount: where it does not hold, that one does.
    """
    for disk in device.disks:
        for block in (disk, *disk.parts):
            with contextlib.suppress(OSError, RefusedError), _opened(rules, block) as descriptor:
                fcntl.ioctl(descriptor, BLKROSET, struct.pack("i", is_locked))


def _mount_safely(rules: Rules, block: _usb.Block, kind: str, target: Path) -> None:
    words = {"uid": str(rules.uid), "gid": str(rules.gid)}
    options = {key: value.format(**words) for key, value in OPTIONS[kind].items()}
    try:
        _mounts.mount(rules.dev / block.name, target, kind, options)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENXIO, errno.ENOMEDIUM):
            raise RefusedError("lost", f"{block.name}: {error.strerror}") from error
        why = "this kernel has no such" if error.errno == errno.ENODEV else error.strerror
        raise RefusedError("unsupported", f"{block.name}: {kind}: {why}") from error
    _check(rules, target, is_read_only=True)
    if (found := _mounts.at(target, rules.table)) is None or found.number != block.number:
        raise RefusedError("unsupported", f"{block.name}: another device was mounted")


def _check(rules: Rules, target: Path, *, is_read_only: bool) -> None:
    """Read from the kernel's table what was really done."""
    found = _mounts.at(target, rules.table)
    missing = sorted(_mounts.SAFE_WORDS - found.flags) if found else ["anything"]
    if found and found.is_read_only != is_read_only:
        missing.append("ro" if is_read_only else "rw")
    if missing:
        raise RefusedError("unsupported", f"{target}: mounted without {', '.join(missing)}")


def _still_there(rules: Rules, slot: str) -> list[Path]:
    """Give the slot's mounts if what is mounted there still hangs there."""
    numbers = {block.number for block in _with_medium(_plugged(rules, slot))}
    targets = _mounts.below(rules.base / slot)
    for target in targets:
        found = _mounts.at(target)
        if found is None or found.number not in numbers:
            raise RefusedError("lost", f"slot {slot}: what is mounted there was pulled")
    if not targets:
        raise RefusedError("lost", f"slot {slot}: nothing is mounted")
    return targets


def _plugged(rules: Rules, slot: str) -> _usb.Device:
    devices = _usb.scan(rules.sys_root)
    found = [devices[port] for port in rules.ports[slot] if port in devices]
    if not found:
        raise RefusedError("lost", f"slot {slot}: nothing hangs there")
    for device in found:
        if device.refusal:
            raise RefusedError("unsupported", f"slot {slot}: {device.refusal}")
    return next((device for device in found if device.disks), found[0])


def _with_medium(device: _usb.Device) -> Iterator[_usb.Block]:
    for disk in device.disks:
        for block in disk.parts or (disk,):
            if block.size_bytes:
                yield block


def _volume(rules: Rules, block: _usb.Block) -> _superblock.Volume | None:
    try:
        with _opened(rules, block) as descriptor:
            volume = _superblock.read(os.pread(descriptor, _superblock.FIRST_BYTES, 0))
            if volume is not None and volume.root_at:
                root = os.pread(descriptor, _superblock.ROOT_BYTES, volume.root_at)
                volume = replace(volume, label=_superblock.label_in(root) or volume.label)
            return volume
    except OSError as error:
        raise RefusedError("lost", f"{block.name}: {error.strerror}") from error


@contextlib.contextmanager
def _opened(rules: Rules, block: _usb.Block) -> Iterator[int]:
    """Open the device file, if it is the very device that sysfs speaks of."""
    path = rules.dev / block.name
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        number = os.major(found.st_rdev), os.minor(found.st_rdev)
        if not stat.S_ISBLK(found.st_mode) or number != block.number:
            raise RefusedError("lost", f"{path}: another device by now")
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _alone(rules: Rules, slot: str) -> Iterator[None]:
    """Let one request of a slot in at a time."""
    if not rules.base.exists():  # else systemd-tmpfiles has made it
        rules.base.mkdir(mode=0o750)
        os.chown(rules.base, 0, rules.gid)
    with (rules.base / f".{slot}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _clear(folder: Path) -> None:
    """Unmount all that is mounted on the folder and in it, also what was pulled long ago."""
    for target in _mounts.below(folder):
        _mounts.detach(target)
    folder.mkdir(mode=0o755, exist_ok=True)
    for path in folder.iterdir():
        path.rmdir()  # a mount point of several; anything else is an error to be told


if __name__ == "__main__":
    sys.exit(main())
