"""The analysis process: every camera's small stream in, one JSON object a line out.

    reader thread a camera: source -> decode -> motion -> slot (newest wins)
    this thread:            slots -> detector (by budget) -> tracker -> rules -> events -> lines

What it says stands in `lines`. A model that is refused leaves motion only, and is told. The process
may be killed at any moment: recording does not depend on it.
"""

import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TextIO

import cv2

from agent.core import log
from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.errors import ModelRejected
from agent.core.files import write_atomic
from agent.core.model import Event, EventState
from agent.vision import calibration, detect, lines, masks, tracklog
from agent.vision.budget import Budget, Need
from agent.vision.config import CameraConfig, DetectorConfig
from agent.vision.decode import Frame, Source, Veil
from agent.vision.follow import Eye
from agent.vision.pipeline import Pipeline
from agent.vision.reader import Reader, Slot
from agent.vision.rules import SOURCE_LOST, Fault

AGENT_STOPPED: Final = "agent stopped"
SOURCE_ENDED: Final = "source ended"
SPOOL: Final = Path("spool")
FAULTS: Final = Path("faults")
FAULT: Final = "analytic_fault"
MAX_REASON_CHARS: Final = 200

_SWITCH_INTERVAL_S: Final = 0.0005  # a decoder waiting for the interpreter loses pictures
_IDLE_S: Final = 0.05
_STATS_S: Final = 1.0
_SILENCE_NS: Final = 2_000_000_000
_JOIN_S: Final = 2.5
_NS_PER_US: Final = 1_000
_US_PER_S: Final = 1_000_000

_log = log.get(__name__)

BuildSource = Callable[[CameraConfig], Source]


def run(  # noqa: PLR0913, PLR0917 - everything the process touches is handed in
    cameras: Sequence[CameraConfig],
    build_source: BuildSource,
    detector_config: DetectorConfig,
    state_dir: Path,
    clock: Clock,
    out: TextIO,
    stop: threading.Event,
) -> None:
    """Analyse the cameras until `stop` is set, or nobody reads `out` any more; sets `stop` then.

    Args:
        cameras: what to analyse; one without a sub-stream is analysed by the key frames of main.
        build_source: gives the source of a camera's pictures; no I/O.
        detector_config: the detector that all share.
        state_dir: snapshots go to its `spool` folder.
        clock: time, waiting, ids.
        out: takes the lines.
        stop: ends the run; open events are closed with the reason "agent stopped".
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    cv2.setNumThreads(1)
    voice = Voice(out, stop)
    eye = _load_detector(detector_config, clock, voice)
    fresh = threading.Event()
    desks = []
    tracklogs = []
    for camera in cameras:
        ground = calibration.of(camera)
        tracks = _tracklog(camera, eye, detector_config, state_dir)
        tracklogs += [tracks] if tracks else []
        pipeline = Pipeline(camera, eye, detector_config.min_score, clock, ground, tracks)
        slot = Slot(fresh)
        reader = _reader(camera, build_source, pipeline, slot, voice, clock)
        snapshots = Snapshots(state_dir, masks.of(camera))
        desks.append(Desk(camera, pipeline, slot, reader, snapshots, voice, clock))
    for desk in desks:
        desk.start(stop)
    try:
        _serve(desks, Budget(detector_config.budget_ms_per_s), fresh, clock, stop)
    finally:
        stop.set()
        for desk in desks:
            desk.reader.close()
        for desk in desks:
            desk.finish(AGENT_STOPPED)
        for log_of_tracks in tracklogs:
            log_of_tracks.flush()


class Voice:
    """Writes whole lines, from any thread; a closed pipe sets `stop`."""

    def __init__(self, out: TextIO, stop: threading.Event) -> None:
        self._out = out
        self._stop = stop
        self._lock = threading.Lock()

    def say(self, line: str) -> None:
        """Write one line and flush it."""
        try:
            with self._lock:
                self._out.write(line + "\n")
                self._out.flush()
        except (BrokenPipeError, ValueError):
            self._stop.set()


@dataclass(slots=True)
class Desk:
    """One camera as the detecting thread sees it."""

    camera: CameraConfig
    pipeline: Pipeline
    slot: Slot
    reader: Reader
    snapshots: "Snapshots"
    voice: Voice
    clock: Clock
    is_moving: bool = False
    tracks: int = 0
    lag_ms: int | None = None
    is_silent: bool = False
    silence_due_ns: int = 0  # the rules on the camera are told of it again then
    thread: threading.Thread | None = None

    def start(self, stop: threading.Event) -> None:
        """Start the reader's thread."""
        self.thread = threading.Thread(
            target=self.reader.run, args=(stop,), name=f"read {self.camera.id}", daemon=True
        )
        self.thread.start()

    def serve(self, budget: Budget) -> None:
        """Judge the waiting picture, if there is one; with a detection if the budget allows.

        Without one the tracks go on with the picture's own motion.
        """
        look = self.slot.take()
        if look is None:
            self._close_if_silent()
            return
        need = self.pipeline.need(look.frame.t_us, look.motion)
        may_detect = need is not Need.NONE and budget.grants(
            self.camera.id, self.clock.mono_ns() // _NS_PER_US
        )
        before_ns = self.pipeline.costs.detect_ns
        result = self.pipeline.judge(look.frame, look.motion, may_detect=may_detect)
        if result.detections is not None:
            cost_ns = self.pipeline.costs.detect_ns - before_ns
            budget.spent(self.camera.id, need, cost_ns / NS_PER_MS)
        self.is_moving, self.tracks = look.motion.is_moving, len(result.tracks)
        self.lag_ms = (self.clock.utc_ns() - look.frame.utc_ns) // NS_PER_MS
        if result.best_now:
            self.snapshots.offer(look.frame, result.best_now)
        self._say_events(result.events)
        for fault in result.faults:
            self._say_fault(fault, look.frame.utc_ns)

    def say_stats(self) -> None:
        """Write the statistics line.

        Raises:
            RuntimeError: the reader's thread died of something that nobody foresaw.
        """
        is_dead = self.thread is not None and not self.thread.is_alive()
        if is_dead and not self.reader.is_over:
            raise RuntimeError(f"reader of camera {self.camera.id} died; its traceback is above")
        decode_ms = round(self.reader.decode_ns / NS_PER_MS, 1)
        self.voice.say(
            lines.line(
                "stats",
                camera=self.camera.id,
                frames=self.reader.frames,
                inferences=self.pipeline.inferences,
                motion_open=self.is_moving,
                tracks=self.tracks,
                lag_ms=self.lag_ms,
                cpu_ms={"decode": decode_ms, **self.pipeline.costs.as_ms()},
                blind={
                    name: {"reason": blind.reason, "total_s": blind.total_s}
                    for name, blind in self.pipeline.rules.blindness().items()
                    if blind.reason or blind.total_s
                },
            )
        )

    def finish(self, reason: str) -> None:
        """Wait for the reader, whose source is closed, and close the open events."""
        if self.thread is not None:
            self.thread.join(_JOIN_S)
        self._say_events(self.pipeline.break_off(reason))

    def _close_if_silent(self) -> None:
        silent_us = (self.clock.mono_ns() - self.reader.last_frame_mono_ns) // _NS_PER_US
        if self.reader.is_over:
            if self.pipeline.open_events:
                self._say_events(self.pipeline.break_off(SOURCE_ENDED))
        elif silent_us <= self.camera.events.lost_s * _US_PER_S:
            self.is_silent = False
        else:
            self._say_silence(silent_us)

    def _say_silence(self, silent_us: int) -> None:
        if not self.is_silent:
            self.is_silent, self.silence_due_ns = True, 0
            self._say_events(self.pipeline.break_off(SOURCE_LOST))
        if self.clock.mono_ns() >= self.silence_due_ns:
            self.silence_due_ns = self.clock.mono_ns() + _SILENCE_NS
            self._say_events(self.pipeline.lost(silent_us, self.clock.utc_ns()).events)

    def _say_fault(self, fault: Fault, utc_ns: int) -> None:
        """Keep what the rule was given, and report it as an event without a clip."""
        event = Event(
            event_id=self.clock.new_id(),
            camera=self.camera.id,
            kind=FAULT,
            rule=fault.rule,
            state=EventState.CLOSED,
            start_utc_ns=utc_ns,
            end_utc_ns=utc_ns,
            label="",
            score=0.0,
            track_ids=(),
            measured={},
            model="",
            reason=fault.reason[:MAX_REASON_CHARS],
            severity="alarm",
            has_clip=False,
        )
        path = self.snapshots.folder / FAULTS / f"{self.camera.id}-{fault.rule}.txt"
        _log.error("rule stopped", camera=self.camera.id, rule=fault.rule, reason=fault.reason)
        try:
            report = "\n".join([fault.reason, fault.state, *map(repr, fault.views)])
            write_atomic(path, report.encode())
        except OSError as error:
            _log.warning("report of the fault not written", path=path, reason=error)
        self.voice.say(lines.to_line(event))

    def _say_events(self, events: Sequence[Event]) -> None:
        for event in events:
            self.voice.say(lines.to_line(self.snapshots.attach(event)))


class Snapshots:
    """Keeps the best picture of every open event, as JPEG; written before the event is told.

    Args:
        state_dir: they go to its `spool` folder.
        veil: covers what nobody may see.
    """

    def __init__(self, state_dir: Path, veil: Veil | None = None) -> None:
        self.folder = state_dir
        self._veil = veil
        self._best: dict[str, bytes] = {}
        self._written: dict[str, Path] = {}

    def offer(self, frame: Frame, event_ids: Sequence[str]) -> None:
        """Keep a picture for events whose best one it is."""
        content = frame.jpeg(self._veil)
        for event_id in event_ids:
            self._best[event_id] = content

    def attach(self, event: Event) -> Event:
        """Write what is new for the event and name the file, relative to the state folder."""
        content = self._best.pop(event.event_id, None)
        if content is not None:
            path = SPOOL / f"{event.event_id}.jpg"
            try:
                write_atomic(self.folder / path, content)
                self._written[event.event_id] = path
            except OSError as error:
                _log.warning("snapshot not written", path=path, reason=error)
        snapshot = self._written.get(event.event_id)
        if event.state is EventState.CLOSED:
            self._written.pop(event.event_id, None)
        return replace(event, snapshot=snapshot)


def _reader(
    camera: CameraConfig,
    build_source: BuildSource,
    pipeline: Pipeline,
    slot: Slot,
    voice: Voice,
    clock: Clock,
) -> Reader:
    def say(state: str, detail: str) -> None:
        voice.say(lines.line("camera", camera=camera.id, state=state, detail=detail))

    return Reader(
        lambda: build_source(camera),
        pipeline,
        slot,
        say,
        clock,
        key_frames_only=camera.sub is None,
    )


def _tracklog(
    camera: CameraConfig, eye: Eye | None, config: DetectorConfig, state_dir: Path
) -> tracklog.Writer | None:
    if not config.tracklog_days:
        return None
    folder = state_dir / tracklog.FOLDER
    keeper = tracklog.Keeper(folder, config.tracklog_days, config.tracklog_max_mb)
    model = "" if eye is None else eye.model_id
    return tracklog.Writer(keeper, tracklog.Session(camera.id, model))


def _load_detector(config: DetectorConfig, clock: Clock, voice: Voice) -> Eye | None:
    try:
        detector = detect.load(config, clock)
    except ModelRejected as error:
        _log.error("detector refused, motion only", reason=error)
        voice.say(lines.line("degraded", model="", reason=str(error)))
        return None
    voice.say(
        lines.line(
            "ready",
            model=detector.model_id,
            runtime=detector.runtime,
            invoke_ms=detector.best_ms,
        )
    )
    return detector


def _serve(
    desks: Sequence[Desk],
    budget: Budget,
    fresh: threading.Event,
    clock: Clock,
    stop: threading.Event,
) -> None:
    """Serve whoever has a picture; the budget says who may have a detection."""
    stats_due_ns = clock.mono_ns()
    while not stop.is_set():
        clock.wait(fresh, _IDLE_S)
        fresh.clear()
        for desk in desks:
            desk.serve(budget)
        if clock.mono_ns() >= stats_due_ns:
            stats_due_ns = clock.mono_ns() + round(_STATS_S * NS_PER_S)
            for desk in desks:
                desk.say_stats()
