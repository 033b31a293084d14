"""A folder of recordings through a camera's rules, with a picture of every event.

Files that the recorder made (`<start in ms>-<run>.mp4`) are joined again to the stream that they
were cut from, at their own wall time; every other file stands alone, and its time begins at 0.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

import cv2
import numpy as np
from av.error import FFmpegError

from agent.core.clock import NS_PER_MS, Clock
from agent.core.errors import AgentError
from agent.core.model import Event, EventState, Track
from agent.vision import calibration, lines, masks
from agent.vision.config import CameraConfig
from agent.vision.decode import Decoder, Frame, Image, Source
from agent.vision.follow import Eye
from agent.vision.offline import END_OF_VIDEO
from agent.vision.pipeline import Pipeline, StepResult, Witness

SUFFIXES: Final = frozenset((".mp4", ".m4v", ".mkv", ".mov", ".avi", ".ts", ".mpg", ".webm"))
WIDTH_PX: Final = 960  # of the pictures

_SEGMENT: Final = re.compile(r"(\d{13})-([0-9A-Za-z]+)\.mp4")
_JOIN_MS: Final = 60_000  # a longer hole within a run is not joined
_QUALITY: Final = 80
_SAMPLES: Final = 24  # pictures of which the empty scene is the median
_NS_PER_US: Final = 1_000
_US_PER_MS: Final = 1_000
_US_PER_S: Final = 1_000_000

OpenSource: TypeAlias = Callable[[Path], Source]


@dataclass(frozen=True, slots=True)
class Recording:
    """One file; `start_utc_ms` is None where its name does not tell."""

    path: Path
    start_utc_ms: int | None = None
    run: str = ""


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture with what was seen in it; without an event, one of those at regular times."""

    recording: Recording
    at_us: int  # since the beginning of the file
    jpeg: bytes
    tracks: tuple[Track, ...]
    event: Event | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that could not be read, or not to its end."""

    path: Path
    reason: str


@dataclass(slots=True)
class Totals:
    """What was gone through."""

    files: int = 0
    pictures: int = 0
    seen_us: int = 0
    size_px: tuple[int, int] = (WIDTH_PX, WIDTH_PX * 9 // 16)
    broken: list[Broken] = field(default_factory=list)


def groups(folder: Path) -> list[list[Recording]]:
    """Give the recordings of a folder and of those in it, in order, joined where they belong."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    found: list[list[Recording]] = []
    for path in files:
        recording = _recording(path)
        if found and _goes_on(found[-1][-1], recording):
            found[-1].append(recording)
        else:
            found.append([recording])
    return found


def line(shot: Shot) -> str:
    """Give an event's line of JSON, empty for a shot without one."""
    if shot.event is None:
        return ""
    document = {
        "file": str(shot.recording.path),
        "at_s": round(shot.at_us / _US_PER_S, 3),
        "event": lines.event_body(shot.event),
        "path": shot.event.path,
    }
    return json.dumps(document) + "\n"


class Review:
    """Goes through recordings with one camera's rules.

    Args:
        camera: whose rules, zones and masks.
        eye: the detector.
        min_score: score from which a detection counts as seen.
        clock: ids of events.
        open_source: gives a file's source.
        every_s: a picture at every so many seconds beside those of events; 0: none.
    """

    def __init__(
        self,
        camera: CameraConfig,
        eye: Eye,
        min_score: float,
        clock: Clock,
        open_source: OpenSource,
        every_s: float = 0.0,
    ) -> None:
        self._camera = camera
        self._eye = eye
        self._min_score = min_score
        self._clock = clock
        self._open_source = open_source
        self._every_us = round(every_s * _US_PER_S)
        self._ground = calibration.of(camera)
        self._veil = masks.of(camera)
        self._scene = _Scene()
        self._best: dict[str, Shot] = {}
        self.totals = Totals()

    @property
    def scene(self) -> bytes | None:
        """The scene without what moves in it, as JPEG; None before the first picture."""
        return self._scene.jpeg()

    def shots(
        self, first: Recording, group: Iterable[Recording], witness: Witness | None = None
    ) -> Iterator[Shot]:
        """Go through a group; gives a shot for each event at its end, and those at regular times.

        Args:
            first: the group's first recording, whose beginning is the stream's.
            group: all of them.
            witness: keeps what the rules are given.
        """
        pipeline = Pipeline(
            self._camera, self._eye, self._min_score, self._clock, self._ground, witness
        )
        last = first
        for recording in group:
            self.totals.files += 1
            last = recording
            try:
                yield from self._shots_of(recording, first, pipeline)
            except (AgentError, FFmpegError, OSError) as error:
                self.totals.broken.append(Broken(recording.path, str(error)))
        yield from self._told(pipeline.break_off(END_OF_VIDEO), last, 0)

    def _shots_of(
        self, recording: Recording, first: Recording, pipeline: Pipeline
    ) -> Iterator[Shot]:
        begun_ms = (recording.start_utc_ms or 0) - (first.start_utc_ms or 0)
        due_us, last_us = 0, 0
        for frame in self._frames(recording.path):
            at_us = frame.t_us
            frame.utc_ns = (recording.start_utc_ms or 0) * NS_PER_MS + at_us * _NS_PER_US
            frame.t_us += begun_ms * _US_PER_MS
            result = pipeline.step(frame)
            self.totals.pictures += 1
            self.totals.seen_us += max(0, at_us - last_us)
            last_us = max(last_us, at_us)
            if result.view is None:
                continue
            is_due = self._every_us > 0 and at_us >= due_us
            yield from self._judged(recording, frame, at_us, result, is_due=is_due)
            due_us += self._every_us if is_due else 0

    def _judged(
        self, recording: Recording, frame: Frame, at_us: int, result: StepResult, *, is_due: bool
    ) -> Iterator[Shot]:
        if self._scene.is_due():
            self._scene.take(self._picture(frame))
        if result.best_now or is_due:
            shot = Shot(recording, at_us, _jpeg(self._picture(frame)), result.tracks)
            self._best |= dict.fromkeys(result.best_now, shot)
            if is_due:
                yield shot
        yield from self._told(result.events, recording, at_us)

    def _told(self, events: Sequence[Event], recording: Recording, at_us: int) -> Iterator[Shot]:
        for event in events:
            if event.state is EventState.CLOSED:
                plain = Shot(recording, at_us, b"", ())
                yield replace(self._best.pop(event.event_id, plain), event=event)

    def _frames(self, path: Path) -> Iterator[Frame]:
        with closing(self._open_source(path)) as source:
            decoder = Decoder(source.open())
            for packet in source.packets():
                yield from decoder.decode(packet)
            yield from decoder.flush()

    def _picture(self, frame: Frame) -> Image:
        """Give the picture at the page's width, masked, red, green, blue."""
        width = min(WIDTH_PX, frame.width_px) // 2 * 2
        height = round(width * frame.height_px / frame.width_px / 2) * 2
        self.totals.size_px = (width, height)
        picture = frame.rgb(width, height).copy()
        if self._veil is not None:
            picture[self._veil.cover(width, height)[0]] = 0
        return picture


class _Scene:
    """Some pictures, spread evenly over all that was seen, and their median."""

    def __init__(self) -> None:
        self._kept: list[Image] = []
        self._step = 1
        self._count = 0

    def is_due(self) -> bool:
        """Whether this picture is wanted; asked once a picture."""
        self._count += 1
        return self._count % self._step == 0

    def take(self, picture: Image) -> None:
        """Keep a picture; when there are too many, every other one goes."""
        if self._kept and self._kept[0].shape != picture.shape:
            self._kept.clear()
        self._kept.append(picture)
        if len(self._kept) >= 2 * _SAMPLES:
            self._kept = self._kept[1::2]
            self._step *= 2

    def jpeg(self) -> bytes | None:
        """Give the median as JPEG."""
        if not self._kept:
            return None
        middle = np.median(np.stack(self._kept[-_SAMPLES:]), axis=0)
        return _jpeg(middle.astype(np.uint8))


def _recording(path: Path) -> Recording:
    found = _SEGMENT.fullmatch(path.name)
    if found is None:
        return Recording(path)
    return Recording(path, int(found[1]), found[2])


def _goes_on(before: Recording, after: Recording) -> bool:
    if before.start_utc_ms is None or after.start_utc_ms is None:
        return False
    is_near = 0 < after.start_utc_ms - before.start_utc_ms <= _JOIN_MS
    return is_near and before.run == after.run and before.path.parent == after.path.parent


def _jpeg(picture: Image) -> bytes:
    swapped = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", swapped, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
