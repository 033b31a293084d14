"""A box with clips, recordings and things set aside, and the keeper that looks after it."""

import hashlib
import json
import os
import time
from pathlib import Path

from agent.core.clock import NS_PER_S, SimClock
from agent.core.store import Store
from agent.delivery.config import RetentionConfig
from agent.evidence import custody
from agent.vision.config import RecordConfig
from agent.vision.disks import Disks
from agent.vision.hold import Keepsakes
from agent.vision.keeper import Box, Keeper
from agent.vision.loop import RecordingLoop

HOUR_S, DAY_S = 3600, 86_400
GB = 1_000_000_000
KEYID = "ed25519:" + "a" * 32


class Shelf:
    """Everything on it is real: rows, files, loop and keeper; only the clock is simulated."""

    def __init__(self, store: Store, folder: Path, **config) -> None:
        self.store, self.folder = store, folder
        self.clock = SimClock(time.time_ns() + NS_PER_S)
        self.told: list = []
        folders = config.pop("folders", ())
        self.disks = Disks(folder, store, self.clock, "cam-1", folders)
        record = RecordConfig(keep_max_gb=100.0, quarantine_days=7, folders=folders)
        box = Box(
            folder,
            store,
            self.disks,
            self.clock,
            self.note,
            lambda _connection, message: self.told.append(message),
        )
        self.keeper = Keeper(box, RetentionConfig(**config), record, ("gate",))
        self.loop = RecordingLoop(
            store, self.disks, self.clock, record, self.note, self.keeper.allowance
        )
        self.holds = Keepsakes(store, self.clock, self.note, ("gate",))
        self.clock.advance(2 * HOUR_S)  # it may be believed by now

    def note(self, connection, kind, subject, detail) -> object:
        return custody.append(connection, self.clock, kind, subject, detail)

    def clip(
        self, clip_id: str, size_bytes: int = 100_000, state: str = "receipted", **row
    ) -> Path:
        """Put a clip with two files there."""
        folder = self.folder / "clips" / clip_id
        folder.mkdir(parents=True)
        now_ns = self.clock.utc_ns()
        contents = {"clip-1.mp4": os.urandom(16) * (size_bytes // 16), "path.json": b"{}"}
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        (folder / "manifest.json").write_bytes(b"{}")

        def change(connection) -> None:
            connection.execute(
                "INSERT INTO event VALUES (?, 'gate', 'k', 'r', 'closed', ?, ?, '{}')",
                (f"e-{clip_id}", now_ns, now_ns + 1),
            )
            connection.execute(
                "INSERT INTO clip (id, event_id, camera, start_utc_ns, end_utc_ns, state, path)"
                " VALUES (?, ?, 'gate', ?, ?, ?, ?)",
                (clip_id, f"e-{clip_id}", now_ns, now_ns + 1, state, f"clips/{clip_id}"),
            )
            for name, content in contents.items():
                sha256 = hashlib.sha256(content).hexdigest()
                receipt = {"sha256": sha256, "size_bytes": len(content), "keyid": KEYID}
                is_signed = row.get("is_signed", state == "receipted")
                connection.execute(
                    "INSERT INTO transfer (fid, clip_id, path, name, size_bytes, sha256, leaf_root,"
                    " manifest, event_ids, state, created_utc_ns, receipt)"
                    " VALUES (?, ?, ?, ?, ?, ?, 'r', '{}', '[]', ?, ?, ?)",
                    (
                        *(f"{clip_id}-{name}", clip_id, f"clips/{clip_id}/{name}", name),
                        *(len(content), sha256, "receipted" if is_signed else "waiting", now_ns),
                        json.dumps(receipt) if is_signed else None,
                    ),
                )

        self.store.write(change)
        return folder

    def receipt(self, clip_id: str) -> None:
        """Let the centre sign for a clip."""

        def change(connection) -> None:
            connection.execute(
                "UPDATE transfer SET state = 'receipted', receipt = json_object('sha256', sha256,"
                " 'size_bytes', size_bytes, 'keyid', ?) WHERE clip_id = ?",
                (KEYID, clip_id),
            )
            connection.execute("UPDATE clip SET state = 'receipted' WHERE id = ?", (clip_id,))

        self.store.write(change)

    def segment(self, size_bytes: int = 100_000, length_s: float = 10.0) -> Path:
        """Put a closed segment there that ends now."""
        end_ns = self.clock.utc_ns()
        path = Path("segments") / "gate" / f"{end_ns}.mp4"
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(bytes(size_bytes))
        values = (str(path), end_ns - round(length_s * NS_PER_S), end_ns, size_bytes)
        self.store.write(
            lambda connection: (
                connection.execute(
                    "INSERT INTO segment (camera, run, path, state, start_utc_ns, end_utc_ns,"
                    " size_bytes, sha256, first_dts, last_dts, time_base_num, time_base_den,"
                    " codec, width_px, height_px, extradata) VALUES"
                    " ('gate', 'r', ?, 'closed', ?, ?, ?, '', 0, 1, 1, 90000, 'h264', 4, 4, x'')",
                    values,
                ).rowcount
            )
        )
        return self.folder / path

    def put(self, name: str, size_bytes: int = 1000) -> Path:
        """Put a file there that no row knows."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size_bytes))
        return path

    def used_bytes(self) -> int:
        """What really lies on the disk, but for the ballast."""
        found = (path for path in self.folder.rglob("*") if path.name != "ballast.bin")
        return sum(path.stat().st_size for path in found if path.is_file())

    def log(self, kind: str) -> list[dict]:
        """Give the custody entries of a kind: their details, with the subject."""
        with self.store.reading() as connection:
            found = connection.execute(
                "SELECT subject, detail FROM custody WHERE kind = ? ORDER BY seq", (kind,)
            )
            return [{"subject": row["subject"], **json.loads(row["detail"])} for row in found]

    def states(self) -> dict[str, str]:
        """Give every clip's state."""
        with self.store.reading() as connection:
            return {row[0]: row[1] for row in connection.execute("SELECT id, state FROM clip")}
