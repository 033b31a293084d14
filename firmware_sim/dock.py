"""The far side of a dock: cameras and other things put into slots and taken out.

`FolderSlot` is a slot of a dock made of folders. A camera's files are a folder of its own, moved
into the slot and back, so that they go with it from slot to slot.
"""

import json
import shutil
from pathlib import Path

LINK, STORAGE, VOLUME, USB, EJECT = "tty", "storage", "volume.json", "usb", "eject"


class FolderSlot:
    """One slot; what hangs there is what its folder holds."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        self.path.mkdir(parents=True, exist_ok=True)
        self._home: Path | None = None  # of the files of what hangs there

    @property
    def is_let_go(self) -> bool:
        """Whether the dock has told the camera that it is done with the storage."""
        return (self.path / EJECT).exists()

    def put_link(self, port: Path, usb_id: str = "") -> None:
        """Plug in a camera that is spoken to, on a serial port."""
        (self.path / EJECT).unlink(missing_ok=True)
        self._say_usb_id(usb_id)
        (self.path / LINK).symlink_to(port)

    def put_storage(self, files: Path, volume: dict[str, object], usb_id: str = "") -> None:
        """Plug in a camera as storage; `files` is moved here until `take`."""
        (self.path / EJECT).unlink(missing_ok=True)
        self._say_usb_id(usb_id)
        self._home = files
        files.rename(self.path / STORAGE)
        whole = self.path / f"{VOLUME}.new"
        whole.write_text(json.dumps(volume))
        whole.rename(self.path / VOLUME)

    def put_mounted(self, mount: Path, volume: dict[str, object]) -> None:
        """Plug in a camera whose files are a file system of their own, mounted elsewhere."""
        (self.path / EJECT).unlink(missing_ok=True)
        (self.path / STORAGE).symlink_to(mount)
        whole = self.path / f"{VOLUME}.new"
        whole.write_text(json.dumps(volume))
        whole.rename(self.path / VOLUME)

    def put_device(self, usb_id: str) -> None:
        """Plug in something that is no camera."""
        self._say_usb_id(usb_id)

    def take(self) -> None:
        """Pull out what hangs there, at once and in the middle of whatever goes on."""
        for name in (VOLUME, LINK, USB, EJECT):
            (self.path / name).unlink(missing_ok=True)
        if (self.path / STORAGE).is_symlink():
            (self.path / STORAGE).unlink()
        elif (self.path / STORAGE).exists():
            if self._home is None:
                shutil.rmtree(self.path / STORAGE)
            else:
                (self.path / STORAGE).rename(self._home)
        self._home = None

    def _say_usb_id(self, usb_id: str) -> None:
        if usb_id:
            (self.path / USB).write_text(f"{usb_id}\n")
