"""A slot of a dock of USB ports, for what plugs into a `FolderSlot` as well."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from firmware_sim.usb_tree import Disk, UsbThing, UsbTree

TTY = "ttyACM0"
SPOKEN_TO = ("4255:0001", ("020201", "0a0000"))
STORAGE = ("4255:0002", ("080650",))


@dataclass
class UsbSlot:
    """One port.

    Attributes:
        name: of the port in the tree, `1-1.2`.
        dev: folder of the device files that the dock opens.
        disk_of: makes a block device of a folder of files, the same one every time.
        was_let_go: whether the dock has unmounted what it had mounted.
    """

    tree: UsbTree
    name: str
    dev: Path
    disk_of: Callable[[Path], Disk]
    was_let_go: Callable[[], bool]

    @property
    def path(self) -> Path:
        """Where its files would stand if they were not in an image."""
        return self.dev / self.name

    @property
    def is_let_go(self) -> bool:
        """Whether the dock is done with the storage."""
        return self.was_let_go()

    def put_link(self, port: Path, usb_id: str = "") -> None:
        """Plug in a camera that is spoken to."""
        (self.dev / TTY).symlink_to(port)
        self.tree.plug(self.name, UsbThing(usb_id or SPOKEN_TO[0], SPOKEN_TO[1], ttys=(TTY,)))

    def put_storage(self, files: Path, volume: dict[str, object], usb_id: str = "") -> None:
        """Plug in a camera as storage."""
        disks = (self.disk_of(files),)
        serial = str(volume.get("serial", ""))
        thing = UsbThing(usb_id or STORAGE[0], STORAGE[1], disks=disks, serial=serial)
        self.tree.plug(self.name, thing)

    def take(self) -> None:
        """Pull out what hangs there."""
        if self.tree.folder(self.name).exists():
            self.tree.pull(self.name)
        (self.dev / TTY).unlink(missing_ok=True)
