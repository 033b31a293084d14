"""What the rules saw, kept for a few days: boxes and times of every view, never a pixel.

One file a camera and day (UTC), `<camera>/<day>.jsonl.zst`: JSON lines in zstd frames of half a
minute each, every frame whole in one write. So a killed process costs its last half minute, and a
damaged frame costs itself alone. Nothing is synced: it is for choosing thresholds, no evidence.

    {"session": {"camera": "west", "model": "…", "goes_on": false}}
    {"t_us": 200000, "utc_ns": 1700000000200000000, "tracks": [{"id": 1, "label": "person", …}]}
    {"break": "source lost"}

A track's history is told by what changed since the view before (`_changed`), which holds whatever
the tracker does with it; read back, a view is the same as it was.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import zstandard

from agent.core import log
from agent.core.clock import NS_PER_S
from agent.core.model import Box, Patch, Picture, Sight, Track, TrackPoint, View
from agent.vision import room

FOLDER: Final = "tracks"
ZST: Final = ".zst"
TEXT: Final = ".jsonl"  # unpacked by hand
SUFFIX: Final = TEXT + ZST
FRAME_NS: Final = 30 * NS_PER_S
SWEEP_NS: Final = 3600 * NS_PER_S
FRAME_BYTES: Final = 1 << 20  # of text: a crowd fills a frame sooner

_MB: Final = 1_000_000
_LEVEL: Final = 6
_BLOCK_BYTES: Final = 1 << 16
_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_TAILS: Final = 3  # how many of the newest points may change at once and still be told briefly

_log = log.get(__name__)

History: TypeAlias = tuple[TrackPoint, ...]


@dataclass(frozen=True, slots=True)
class Session:
    """The head of every file; histories begin anew."""

    camera: str
    model: str  # empty: there was no detector
    goes_on: bool = False  # it is midnight only: ids and open events go on


@dataclass(frozen=True, slots=True)
class Seen:
    """One view as the rules were given it."""

    view: View
    utc_ns: int


@dataclass(frozen=True, slots=True)
class Break:
    """The open events were closed and the tracks forgotten."""

    reason: str


@dataclass(frozen=True, slots=True)
class Damage:
    """A piece of the file could not be read."""

    path: Path
    offset: int


Item: TypeAlias = Session | Seen | Break | Damage


class Keeper:
    """The folder of all cameras' logs: what is too old or too much is deleted.

    Args:
        folder: of the logs; made when the first is written.
        days: how long one is kept.
        max_mb: how much all of them may take.
    """

    def __init__(self, folder: Path, days: int, max_mb: int) -> None:
        self.folder = folder
        self._days = days
        self._max_bytes = max_mb * _MB

    def sweep(self, utc_ns: int) -> None:
        """Delete what has been kept for long enough, then the oldest until the rest fits."""
        oldest = _day(utc_ns - self._days * 86_400 * NS_PER_S)
        found = sorted(self.folder.glob(f"*/*{SUFFIX}"), key=lambda path: path.name)
        sizes = {path: path.stat().st_size for path in found}
        for path in found:
            is_old = path.name.removesuffix(SUFFIX) <= oldest
            if is_old or sum(sizes.values()) > self._max_bytes:
                path.unlink(missing_ok=True)
                del sizes[path]

    def has_room(self) -> bool:
        """Whether the disk has more than the last bytes that recording needs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        found = room.of(self.folder)
        return found.free_bytes > found.least_bytes


class Writer:
    """Keeps the views of one camera; for the thread that judges.

    A disk that refuses is told once and costs the log alone.
    """

    def __init__(self, keeper: Keeper, session: Session) -> None:
        self._keeper = keeper
        self._session = session
        self._lines: list[str] = []
        self._bytes = 0
        self._begun_utc_ns = 0
        self._day = ""
        self._known: dict[int, History] = {}
        self._swept_utc_ns = -SWEEP_NS - 1
        self._is_refused = False

    def saw(self, view: View, utc_ns: int) -> None:
        """Keep a view."""
        is_due = not 0 <= utc_ns - self._begun_utc_ns < FRAME_NS or self._bytes > FRAME_BYTES
        if is_due or not self._day:
            self._begin(utc_ns)
        self._add(_view_document(view, utc_ns, self._known))
        self._known = _histories(view)

    def broke(self, reason: str) -> None:
        """Keep that the tracks were forgotten."""
        self._known = {}
        if self._day:
            self._add({"break": reason})

    def flush(self) -> None:
        """Write what is pending, in one frame."""
        if not self._lines:
            return
        text = ("\n".join(self._lines) + "\n").encode()
        self._lines, self._bytes = [], 0
        try:
            self._append(zstandard.ZstdCompressor(level=_LEVEL).compress(text))
        except OSError as error:
            self._refuse(error.strerror or str(error))

    def _begin(self, utc_ns: int) -> None:
        """Begin a frame, and with a new day a file that can be read without the one before."""
        self.flush()
        self._begun_utc_ns = utc_ns
        day = _day(utc_ns)
        if day != self._day:
            self._known = {}
            self._add({"session": asdict(replace(self._session, goes_on=bool(self._day)))})
            self._day = day

    def _add(self, document: Mapping[str, Any]) -> None:
        line = _text(document)
        self._lines.append(line)
        self._bytes += len(line)

    def _append(self, frame: bytes) -> None:
        if abs(self._begun_utc_ns - self._swept_utc_ns) > SWEEP_NS:
            self._swept_utc_ns = self._begun_utc_ns
            self._keeper.sweep(self._begun_utc_ns)
        if not self._keeper.has_room():
            self._refuse("no room on the disk")
            return
        path = self._keeper.folder / self._session.camera / f"{self._day}{SUFFIX}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            stream.write(frame)
        self._is_refused = False

    def _refuse(self, reason: str) -> None:
        if not self._is_refused:
            _log.warning("track log not written", camera=self._session.camera, reason=reason)
        self._is_refused = True


def paths(folder: Path, camera: str) -> list[Path]:
    """Give a camera's logs in a folder of logs, oldest first."""
    return sorted((folder / camera).glob(f"*{SUFFIX}"))


def camera_of(path: Path) -> str:
    """Give the camera that a log is of; empty where it does not say; OSError as `read`."""
    for item in read([path]):
        if isinstance(item, Session):
            return item.camera
    return ""


def read(files: Iterable[Path]) -> Iterator[Item]:
    """Give what logs hold, in the order of the files, which follow each other in time.

    Raises:
        OSError: a file cannot be read at all.
    """
    known: dict[int, History] = {}
    for path in files:
        with path.open("rb") as stream:
            for found in _frames(stream, path) if path.suffix == ZST else iter([stream.read()]):
                if isinstance(found, Damage):
                    known = {}
                    yield found
                    continue
                for line in found.splitlines():
                    try:
                        item = _item(json.loads(line), known)
                    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
                        item = Damage(path, stream.tell())
                    known = _histories(item.view) if isinstance(item, Seen) else {}
                    yield item


def _frames(stream: BinaryIO, path: Path) -> Iterator[bytes | Damage]:
    """Give each frame's text; what is no frame is passed over up to the next one."""
    pending = stream.read(_BLOCK_BYTES)
    offset = 0
    while pending:
        content, pending, taken = _frame(stream, pending)
        if content is not None:
            yield content
        else:
            yield Damage(path, offset)
            skipped, pending = _next_frame(stream, pending)
            taken += skipped
        offset += taken
        pending = pending or stream.read(_BLOCK_BYTES)


def _frame(stream: BinaryIO, pending: bytes) -> tuple[bytes | None, bytes, int]:
    """Read one frame; gives its text, what is left, and how many bytes it took."""
    inflate = zstandard.ZstdDecompressor().decompressobj()
    raw, text = pending, []
    try:
        text.append(inflate.decompress(pending))
        while not inflate.eof:
            more = stream.read(_BLOCK_BYTES)
            if not more:
                return None, b"", len(raw)  # the end of a killed writer
            raw += more
            text.append(inflate.decompress(more))
    except zstandard.ZstdError:
        return None, raw, 0
    left = inflate.unused_data
    return b"".join(text), left, len(raw) - len(left)


def _next_frame(stream: BinaryIO, pending: bytes) -> tuple[int, bytes]:
    """Pass over bytes up to where a frame may begin; gives how many, and what is left."""
    skipped, pending = min(1, len(pending)), pending[1:]
    while pending:
        place = pending.find(_MAGIC)
        if place >= 0:
            return skipped + place, pending[place:]
        tail = pending[-len(_MAGIC) + 1 :]
        skipped += len(pending) - len(tail)
        more = stream.read(_BLOCK_BYTES)
        if not more:
            return skipped + len(tail), b""
        pending = tail + more
    return skipped, b""


def _histories(view: View) -> dict[int, History]:
    return {track.track_id: track.history for track in view.tracks}


def _view_document(view: View, utc_ns: int, known: Mapping[int, History]) -> dict[str, Any]:
    document: dict[str, Any] = {"t_us": view.t_us, "utc_ns": utc_ns}
    if view.gap_us:
        document["gap_us"] = view.gap_us
    if view.is_lost:
        document["is_lost"] = True
    if view.tracks:
        document["tracks"] = [
            _track_document(track, known.get(track.track_id, ())) for track in view.tracks
        ]
    if view.picture is not None:
        document["picture"] = asdict(view.picture)
    return document


def _track_document(track: Track, before: History) -> dict[str, Any]:
    first, dropped, points = _changed(before, track.history)
    document: dict[str, Any] = {
        "id": track.track_id,
        "label": track.label,
        "score": track.score,
        "age_s": track.age_s,
    }
    if track.missing_s:
        document["missing_s"] = track.missing_s
    if track.predecessor is not None:
        document["predecessor"] = track.predecessor
    if first or dropped:
        document["cut"] = [first, dropped]
    document["points"] = [[point.t_us, *point.box, point.sight.value] for point in points]
    if not points or points[-1].box != track.box:
        document["box"] = list(track.box)
    return document


def _changed(before: History, after: History) -> tuple[int, int, History]:
    """Give how many points went at the front and at the end, and those that came at the end."""
    if not before or not after:
        return 0, len(before), after
    first = next((place for place, item in enumerate(before) if item is after[0]), None)
    if first is None:
        first = next((place for place, item in enumerate(before) if item == after[0]), None)
    if first is None:
        return 0, len(before), after
    rest = before[first:]
    for dropped in range(min(_TAILS, len(rest)) + 1):
        kept = len(rest) - dropped
        if kept and rest[:kept] == after[:kept]:
            return first, dropped, after[kept:]
    return 0, len(before), after


def _item(document: dict[str, Any], known: Mapping[int, History]) -> Item:
    if "session" in document:
        return Session(**document["session"])
    if "break" in document:
        return Break(document["break"])
    tracks = tuple(_track(item, known) for item in document.get("tracks", ()))
    picture = document.get("picture")
    view = View(
        t_us=document["t_us"],
        gap_us=document.get("gap_us", 0),
        tracks=tracks,
        picture=None if picture is None else _picture(picture),
        is_lost=document.get("is_lost", False),
    )
    return Seen(view, document["utc_ns"])


def _track(document: dict[str, Any], known: Mapping[int, History]) -> Track:
    points = tuple(
        TrackPoint(t_us, Box(*box), Sight(sight)) for t_us, *box, sight in document["points"]
    )
    first, dropped = document.get("cut", (0, 0))
    before = known.get(document["id"], ())
    history = before[first : len(before) - dropped] + points
    return Track(
        track_id=document["id"],
        label=document["label"],
        score=document["score"],
        box=Box(*document["box"]) if "box" in document else history[-1].box,
        age_s=document["age_s"],
        missing_s=document.get("missing_s", 0.0),
        history=history,
        predecessor=document.get("predecessor"),
    )


def _picture(document: dict[str, Any]) -> Picture:
    return Picture(
        **{
            **document,
            "moving": tuple(Box(*box) for box in document["moving"]),
            "patches": tuple(
                Patch(Box(*item["box"]), item["since_us"]) for item in document["patches"]
            ),
        }
    )


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))


def _day(utc_ns: int) -> str:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return (epoch + timedelta(seconds=utc_ns // NS_PER_S)).date().isoformat()
