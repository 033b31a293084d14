"""What lies aside: counted, told by its age; strays of the spool are set aside."""

import os
import time
from pathlib import Path

import pytest

from agent.core.clock import NS_PER_S, SimClock
from agent.core.store import Store
from agent.evidence import custody
from agent.vision import aside
from agent.vision.aside import NS_PER_DAY
from agent.vision.disks import STATE_DIR, Folder
from tests.vision.recording import rows

DAY_S = NS_PER_DAY / NS_PER_S


class Attic:
    """A state directory, and a clock that goes from now on."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.path = folder
        self.folders = (Folder(STATE_DIR, folder),)
        self.clock = SimClock(time.time_ns() + NS_PER_S)

    def note(self, connection, kind, subject, detail) -> object:
        return custody.append(connection, self.clock, kind, subject, detail)

    def put(self, name: str, content: bytes = b"x") -> Path:
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    def sweep(self) -> int:
        return aside.sweep_spool(self.store, self.clock, self.folders, self.note)


@pytest.fixture
def attic(store: Store, tmp_path: Path) -> Attic:
    return Attic(store, tmp_path)


def test_quarantine_is_counted_and_told_by_its_age(attic: Attic) -> None:
    path = attic.put("quarantine/gate-1.mp4", b"remains")
    os.utime(path, (1_000_000_000, 1_000_000_000))  # an old file, set aside just now
    assert aside.count(attic.folders) == aside.Aside(1, 7)
    (found,) = aside.lying(attic.folders[0], "quarantine")
    attic.clock.advance(30 * DAY_S)
    assert found.age_ns(attic.clock.utc_ns()) / NS_PER_DAY == pytest.approx(30, abs=0.01)


def test_file_set_aside_by_a_wrong_clock_counts_from_now(attic: Attic) -> None:
    path = attic.put("quarantine/gate-1.mp4")
    came_ns = path.stat().st_ctime_ns
    (found,) = aside.lying(attic.folders[0], "quarantine")
    early_ns = came_ns - 400 * NS_PER_DAY
    assert found.age_ns(early_ns) == 0
    aside.count_from_now(found, early_ns)
    assert path.stat().st_ctime_ns > came_ns


def test_links_and_folders_are_left_alone(attic: Attic) -> None:
    outside = attic.put("precious")
    (attic.path / "quarantine").mkdir()
    (attic.path / "quarantine" / "link").symlink_to(outside)
    (attic.path / "quarantine" / "folder").mkdir()
    assert list(aside.lying(attic.folders[0], "quarantine")) == []


def test_pictures_nobody_wants_are_set_aside_after_a_day(attic: Attic) -> None:
    names = ("stray", "open", "wanted", "done")
    for name in names:
        attic.put(f"spool/{name}.jpg", name.encode())

    def change(connection) -> None:
        event = "INSERT INTO event VALUES (?, 'gate', 'k', 'r', ?, 0, NULL, '{}')"
        for name, state in (("open", "open"), ("wanted", "closed"), ("done", "closed")):
            connection.execute(event, (name, state))
        clip = (
            "INSERT INTO clip (id, event_id, camera, start_utc_ns, end_utc_ns, state, snapshot)"
            " VALUES (?, ?, 'gate', 0, 1, ?, ?)"
        )
        connection.execute(clip, ("c1", "wanted", "wanted", "spool/wanted.jpg"))

    attic.store.write(change)
    assert attic.sweep() == 0
    attic.clock.advance(DAY_S + 60)
    assert attic.sweep() == 2
    left = {path.stem for path in (attic.path / "spool").iterdir()}
    assert left == {"open", "wanted"}
    moved = {path.read_bytes() for path in (attic.path / "quarantine").iterdir()}
    assert moved == {b"stray", b"done"}  # nothing is deleted by it
    assert len(rows(attic.store, "SELECT * FROM custody WHERE kind = 'file.quarantined'")) == 2


def test_nothing_there_is_nothing_to_do(attic: Attic) -> None:
    assert (attic.sweep(), aside.count(attic.folders)) == (0, aside.Aside())
