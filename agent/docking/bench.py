"""What every slot works with, and what one slot tells while it works."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agent.core.clock import NS_PER_S, Clock
from agent.core.dock import Dock, Storage
from agent.docking.codes import Code
from agent.docking.config import DockConfig
from agent.docking.footage import Footage, FootageRows, Found, SealedFile
from agent.docking.officers import Officers
from agent.docking.slotrows import Docking, SlotRows
from agent.evidence.hashing import FileHash

Note = Callable[[str, str, Mapping[str, object]], object]
"""Appends (kind, subject, detail) to the custody log in a transaction of its own."""

Tick = Callable[[int], None]
"""Called with the bytes done since the last call; raises to end the work."""


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What lies on a camera."""

    found: Sequence[Found]
    ignored: Sequence[Mapping[str, str]]  # name and reason
    codes: Sequence[Code]  # why a technician should look
    free_percent: float | None  # of the medium; None: not known


@dataclass(frozen=True, slots=True)
class Copied:
    """A file that was copied."""

    hash: FileHash
    flags: Sequence[str]
    bad: Sequence[tuple[int, int]] = ()  # first byte and the one after the last: zeros here


class Ingest(Protocol):
    """Files from a camera's storage to sealed copies."""

    def survey(self, storage: Storage, marks: Sequence[str]) -> Surveyed:
        """List what is there; SourceLost if the storage goes."""
        ...

    def copy(self, storage: Storage, item: Footage, tick: Tick) -> Copied:
        """Copy one file and compare, going on where it was cut short.

        Raises:
            SourceLost: the storage went.
            Unsupported: this file cannot be opened.
            StorageError: our own disk refuses.
            IntegrityError: our own disk does not give back what was written.
        """
        ...

    def seal(self, item: Footage, copied: Copied, docking: Docking) -> SealedFile:
        """Sign what was copied and put it into its place; StorageError if the disk refuses."""
        ...

    def discard(self, item: Footage) -> None:
        """Delete what was copied: it is here already."""
        ...

    def is_same(self, storage: Storage, item: Footage) -> bool:
        """Whether a file is the sealed one by its end: enough not to copy it, not to wipe it."""
        ...

    def supersede(self, item: Footage, docking: Docking) -> SealedFile | None:
        """Seal what was copied of a file that is not there any more; None: nothing was."""
        ...

    def seal_list(self, docking: Docking, files: Sequence[Footage]) -> str:
        """Sign the list of a docking and have it go to the centre; gives its hash."""
        ...


@dataclass(slots=True)
class Pace:
    """How a slot's copying goes; written by its own thread, read by others."""

    files_total: int = 0
    files_done: int = 0
    bytes_total: int = 0
    bytes_done: int = 0
    began_ns: int = 0
    began_bytes: int = 0
    free_percent: float | None = None

    def reset(self) -> None:
        """Forget the camera before."""
        self.begin((), (), 0)
        self.free_percent = None

    def begin(self, sizes: Sequence[int], known: Sequence[int], now_ns: int) -> None:
        """Start counting: sizes of all files, and of those that are here already."""
        self.files_total, self.files_done = len(sizes), len(known)
        self.bytes_total, self.bytes_done = sum(sizes), sum(known)
        self.began_ns, self.began_bytes = now_ns, self.bytes_done

    def seconds_left(self, now_ns: int) -> float | None:
        """Give an estimate from the rate so far; None before there is one."""
        seconds = (now_ns - self.began_ns) / NS_PER_S
        done = self.bytes_done - self.began_bytes
        if seconds < 1 or done <= 0:
            return None
        return max(0, self.bytes_total - self.bytes_done) * seconds / done


class FilesBench(Protocol):
    """The parts that bring files in."""

    @property
    def rows(self) -> SlotRows:
        """Dockings."""
        ...

    @property
    def footage(self) -> FootageRows:
        """Files."""
        ...

    @property
    def ingest(self) -> Ingest:
        """What copies and seals."""
        ...

    @property
    def clock(self) -> Clock:
        """Time."""
        ...


@dataclass(frozen=True, slots=True)
class Bench:
    """The parts that all slots share."""

    dock: Dock
    rows: SlotRows
    footage: FootageRows
    officers: Officers
    ingest: Ingest
    clock: Clock
    config: DockConfig
    note: Note
    is_clock_good: Callable[[], bool]  # ours: whether it may set others
    paces: dict[str, Pace] = field(default_factory=dict)
