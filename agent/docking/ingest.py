"""One card or folder brought in by hand: the work of a slot, without a dock, a link or an agent.

The folder that takes it has the same form as a dock's state directory, its own small database
included, so that whatever reads one reads the other, and a run that was killed goes on.
"""

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from agent.core.clock import Clock
from agent.core.dock import Identity
from agent.core.errors import ConfigError, SourceLost, StorageError
from agent.docking.bench import Ingest, Pace, Tick
from agent.docking.config import CopyConfig
from agent.docking.footage import Footage, FootageRows
from agent.docking.gathering import Gathering
from agent.docking.intake import SESSIONS, Custodian, Intake
from agent.docking.names import camera_name
from agent.docking.slotrows import Docking, SlotRows
from agent.docking.states import State
from agent.evidence import custody, docklist

BY_HAND = "by-hand"  # device, site and slot of what no dock has taken
MOST_ROUNDS = 3  # of listing again because there was more
MOST_SERIAL, MOST_OFFICER = 128, 64


@dataclass(frozen=True, slots=True)
class Card:
    """A card or folder, and what somebody says of it."""

    root: Path
    serial: str = ""  # of the camera; empty: the folder's name stands for it
    officer: str = ""
    capacity_bytes: int = 0  # unknown: its file system tells


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of it."""

    camera: str
    session_id: str
    list_path: Path
    list_sha256: str
    quarantine: str  # code of what a technician should look at; empty: nothing
    files: Sequence[Footage]
    copied: frozenset[str]  # ids of those that were copied in this run
    ignored: int

    @property
    def counts(self) -> dict[str, int]:
        """Give numbers of files."""
        here = [item for item in self.files if item.here != "no"]
        return {
            "files": len(self.files),
            "copied": sum(item.id in self.copied and not item.same_as for item in here),
            "same_bytes": sum(item.id in self.copied and bool(item.same_as) for item in here),
            "here_before": sum(item.id not in self.copied for item in here),
            "not_copied": len(self.files) - len(here),
            "ignored": self.ignored,
        }

    @property
    def flags(self) -> dict[str, int]:
        """Give how many files have which flag."""
        return dict(Counter(flag for item in self.files for flag in item.flag_list))


@dataclass(frozen=True, slots=True)
class _Bench:
    rows: SlotRows
    footage: FootageRows
    ingest: Ingest
    clock: Clock


class _Folder:
    """A folder as a camera's storage; it is only read."""

    def __init__(self, card: Card) -> None:
        self.root = card.root
        self.serial = card.serial
        self.capacity_bytes = card.capacity_bytes

    def writable(self) -> AbstractContextManager[None]:
        """See `Storage.writable`: never."""
        raise StorageError(f"{self.root}: nothing is deleted of what is brought in by hand")

    def close(self, *, eject: bool = True) -> None:
        """See `Storage.close`."""


def check(card: Card, out: Path) -> None:
    """Refuse what cannot be brought in.

    Raises:
        ConfigError: no folder, one within the other, or words that are too long.
    """
    if not card.root.is_dir():
        raise ConfigError(f"ingest: {card.root}: no folder; allowed: a card's or any other folder")
    here, there = out.resolve(), card.root.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise ConfigError(f"ingest: --out {out}: allowed: outside of {card.root}, not around it")
    for what, text, most in (
        ("serial", card.serial, MOST_SERIAL),
        ("officer", card.officer, MOST_OFFICER),
    ):
        if len(text) > most or not text.isprintable():
            raise ConfigError(f"ingest: --{what}: allowed: up to {most} letters that can be shown")


def ingest(card: Card, who: Custodian, config: CopyConfig, tick: Tick, pace: Pace) -> Taken:
    """Copy, hash and sign all of a card, then the list of it; goes on where a run was cut short.

    Args:
        card: what is brought in.
        who: signs; its folder takes everything.
        config: how it is copied.
        tick: called as it goes on, with the bytes done since.
        pace: tells how far it is.

    Raises:
        SourceLost: the card went away, or files on it come and go: run it again.
        StorageError: our own disk refuses; what is here stays.
    """

    def note(
        connection: sqlite3.Connection, kind: str, subject: str, detail: Mapping[str, object]
    ) -> object:
        return custody.append(connection, who.clock, kind, subject, detail)

    rows = SlotRows(who.store, who.clock)
    footage = FootageRows(who.store, who.clock, note)
    intake = Intake(who, config)
    gathering = Gathering(_Bench(rows, footage, intake, who.clock))
    storage = _Folder(card)
    docking = _docking(rows, card)
    copied: set[str] = set()
    for _ in range(MOST_ROUNDS):
        docking = _reread(rows, docking)
        wanted = gathering.list(docking, storage, pace)
        gathering.take(docking, storage, pace, tick)
        copied |= {item.id for item in wanted}
        if gathering.is_settled(docking, storage):
            break
    else:
        raise SourceLost(f"{card.root}: there is more each time it is listed; run it again later")
    docking = _reread(rows, docking)
    files = footage.of_session(docking.id)
    digest = intake.seal_list(docking, files)
    rows.end(rows.slot(BY_HAND), State.EMPTY)
    return Taken(
        docking.camera,
        docking.id,
        who.state_dir / SESSIONS / docking.id / docklist.FILE_NAME,
        digest,
        docking.quarantine,
        files,
        frozenset(copied),
        len(docking.left_out),
    )


def _docking(rows: SlotRows, card: Card) -> Docking:
    """Take up the docking of this very camera that was cut short, or begin one."""
    camera = camera_name(card.serial or card.root.resolve().name) or "card"
    slot = rows.slot(BY_HAND)
    unfinished = rows.docking(slot.session_id) if slot.session_id else None
    if (
        unfinished is not None
        and unfinished.sealed_utc_ns is None
        and (unfinished.camera, unfinished.officer) == (camera, card.officer)
    ):
        return unfinished
    if slot.session_id:
        rows.end(slot, State.EMPTY)
    begun = rows.begin(BY_HAND, "", "")
    officer = (card.officer, "assigned" if card.officer else "unknown")
    rows.identified(begun.session_id, camera, Identity(card.serial), officer)
    found = rows.docking(begun.session_id)
    if found is None:
        raise StorageError(f"docking {begun.session_id}: our own disk does not give it back")
    return found


def _reread(rows: SlotRows, docking: Docking) -> Docking:
    return rows.docking(docking.id) or docking
