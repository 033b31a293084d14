"""Cuts the power of a virtual machine: `python -m tests.crash.vmcut --rounds 10 --seed 1`.

A guest puts rows into the outbox and writes files; qemu is killed at a random moment, so that all
which the guest had not handed to its disk is gone; the next boot tells what is there. Every row and
file that was promised on the console must be. The root of the guest is this machine's, read-only.

Needs qemu-system-x86_64, busybox (static), mkfs.ext4 and a kernel with its modules: the installed
one, or a package that was unpacked (`dpkg-deb -x linux-image-….deb FOLDER`: `--kernel FOLDER`).
"""

import argparse
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from firmware_sim.demo import ROOT

MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4", "9p", "9pnet_virtio")
PROGRAMS = ("qemu-system-x86_64", "busybox", "mkfs.ext4", "modprobe")
DISK_BYTES = 512 << 20
BOOT_S = 120.0
PUTS = (50, 1500)  # seen before the cut
INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /sys /dev /host
$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
while read -r module; do $b insmod "/modules/$module"; done </modules/order
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 host /host
$b mount -t ext4 /dev/vda /host/mnt
$b mount -t proc proc /host/proc
$b mount -t devtmpfs dev /host/dev
word=$($b sed 's/.*outpost=\\([a-z]*\\).*/\\1/' /proc/cmdline)
export PYTHONPATH={root} PYTHONDONTWRITEBYTECODE=1 HOME=/mnt
cd {root} 2>/dev/null || true
$b chroot /host {python} -m tests.crash.vmguest "$word" /mnt
$b sync
$b poweroff -f
"""


@dataclass
class Seen:
    """What a boot said on its console."""

    puts: set[str] = field(default_factory=set)
    files: dict[str, str] = field(default_factory=dict)
    loose: set[str] = field(default_factory=set)
    check: str = ""
    is_told: bool = False
    other: list[str] = field(default_factory=list)

    def take(self, line: str) -> None:
        """Note one line."""
        words = line.split()
        if words[:1] == ["put"] and len(words) == 2:
            self.puts.add(words[1])
        elif words[:1] == ["file"] and len(words) == 3:
            self.files[words[1]] = words[2]
        elif words[:1] == ["loose"]:
            self.loose.add(words[-1])
        elif words[:1] == ["check"]:
            self.check = " ".join(words[1:])
        elif words == ["told"]:
            self.is_told = True
        else:
            self.other.append(line)


class Machine:
    """A kernel, an initial file system and a disk."""

    def __init__(self, folder: Path, kernel_root: Path, accel: str = "tcg") -> None:
        self._folder, self._accel = folder, accel
        self._kernel = max((kernel_root / "boot").glob("vmlinuz-*"))
        self._version = self._kernel.name.removeprefix("vmlinuz-")
        self._disk = folder / "disk.img"
        with self._disk.open("wb") as stream:
            stream.truncate(DISK_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self._disk)], check=True)
        self._make_initrd(kernel_root)

    def run(self, word: str, seen: Seen, until_puts: int = 0, more_s: float = 0.0) -> None:
        """Boot with a word for the guest; cut the power after so many puts, or wait for the end.

        Raises:
            RuntimeError: the guest did not come so far.
        """
        argv = [
            "qemu-system-x86_64",
            "-machine",
            f"q35,accel={self._accel}",
            "-m",
            "768",
            "-smp",
            "2",
        ]
        argv += ["-nographic", "-no-reboot", "-kernel", str(self._kernel)]
        argv += ["-initrd", str(self._folder / "initrd"), "-nic", "none"]
        argv += ["-append", f"console=ttyS0 loglevel=4 panic=-1 outpost={word}"]
        argv += ["-drive", f"file={self._disk},if=virtio,format=raw,cache=writeback"]
        argv += ["-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on"]
        argv[-1] += ",multidevs=remap"
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        reader = threading.Thread(target=_read, args=(process, seen), daemon=True)
        reader.start()
        try:
            _wait(
                lambda: process.poll() is not None or (until_puts and len(seen.puts) >= until_puts)
            )
            time.sleep(more_s)
        finally:
            process.kill()  # SIGKILL: the guest is not told
            process.wait()
            reader.join(10.0)
        if until_puts and len(seen.puts) < until_puts:
            raise RuntimeError(f"guest ended early: {seen.other[-10:]}")

    def _make_initrd(self, kernel_root: Path) -> None:
        root = self._folder / "root"
        (root / "bin").mkdir(parents=True)
        (root / "modules").mkdir()
        shutil.copy(shutil.which("busybox"), root / "bin" / "busybox")
        names = []
        for path in self._modules(kernel_root):
            names.append(path.name)
            shutil.copy(path, root / "modules" / path.name)
        (root / "modules" / "order").write_text("\n".join(names) + "\n")
        script = INIT.replace("{root}", str(ROOT)).replace("{python}", sys.executable)
        (root / "init").write_text(script)
        (root / "init").chmod(0o755)
        found = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
        with (self._folder / "initrd").open("wb") as stream:
            subprocess.run(
                ["busybox", "cpio", "-o", "-H", "newc"],
                cwd=root,
                input=found.encode(),
                stdout=stream,
                stderr=subprocess.DEVNULL,
                check=True,
            )

    def _modules(self, kernel_root: Path) -> list[Path]:
        """Give the modules' files in the order in which they have to be loaded."""
        base = ["-d", str(kernel_root), "-S", self._version]
        if not (kernel_root / "lib" / "modules" / self._version / "modules.dep").exists():
            subprocess.run(["depmod", "-b", str(kernel_root), self._version], check=True)
        ordered: dict[Path, None] = {}
        for name in MODULES:
            told = subprocess.run(
                ["modprobe", *base, "--show-depends", name],
                capture_output=True,
                text=True,
                check=True,
            )
            for line in told.stdout.splitlines():
                words = line.split()
                if words[:1] == ["insmod"]:  # others are part of the kernel
                    ordered[Path(words[1])] = None
        return list(ordered)


def _read(process: subprocess.Popen, seen: Seen) -> None:
    for line in process.stdout:
        if line.endswith(b"\n"):  # the last one may be cut off
            seen.take(line.decode(errors="replace").strip())


def _wait(condition) -> None:
    deadline_s = time.monotonic() + BOOT_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"guest: not so far within {BOOT_S:.0f} s")
        time.sleep(0.02)


def missing(kernel_root: Path) -> str:
    """Say what is not here; empty if a machine can be made."""
    for name in PROGRAMS:
        if shutil.which(name) is None:
            return f"needs {name}"
    if platform.machine() != "x86_64":
        return "needs x86-64"
    if not list((kernel_root / "boot").glob("vmlinuz-*")):
        return f"needs a kernel in {kernel_root / 'boot'}"
    return ""


def main(argv: list[str] | None = None) -> int:
    """Run the rounds; 0 only if nothing that was promised is gone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kernel", type=Path, default=Path("/"), help="where boot/ and lib/ are")
    parser.add_argument("--accel", choices=("tcg", "kvm"), default="tcg")
    options = parser.parse_args(argv)
    if why := missing(options.kernel):
        print(f"no virtual machine here: {why}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        machine = Machine(Path(folder), options.kernel.absolute(), options.accel)
        return _rounds(machine, options.rounds, random.Random(options.seed))


def _rounds(machine: Machine, rounds: int, dice: random.Random) -> int:
    promised, broken = Seen(), 0
    for number in range(1, rounds + 1):
        wanted = len(promised.puts) + dice.randrange(*PUTS)
        machine.run("put", promised, wanted, dice.uniform(0.0, 0.5))
        left = Seen()
        machine.run("tell", left)
        lost = len(promised.puts - left.puts)
        files = {name for name, sha in promised.files.items() if left.files.get(name) != sha}
        loose = len(promised.puts - left.loose)
        is_held = left.is_told and left.check == "ok" and not lost and not files
        broken += not is_held
        print(
            f"cut {number:3}/{rounds}: {len(promised.puts)} rows and {len(promised.files)} files"
            f" promised, {lost} and {len(files)} gone, database {left.check or 'not told'};"
            f" of the lines that nobody synced {loose} gone:"
            f" {'held' if is_held else 'BROKEN'}",
            flush=True,
        )
    print(f"{rounds} cuts, {broken} broken")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
