"""Made scenes through the real chain: looks -> tracker -> faults of identity -> rules -> events."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from agent.core.config import Kinded
from agent.core.model import Box, Detection, Event, EventState, Track, View
from agent.vision import analytics, calibrate
from agent.vision.analytics import Ground
from agent.vision.calibration import Mark
from agent.vision.config import CameraConfig, LineConfig, ZoneConfig
from agent.vision.pipeline import Pipeline
from agent.vision.survey import Survey
from agent.vision.track import Tracker
from firmware_sim.scenes import Look, Scene

MIN_SCORE: Final = 0.4
RULE: Final = "rule"

_FIRST_INJECTED: Final = 100_000  # ids that the tracker never gives
_NS_PER_US: Final = 1_000
_US_PER_S: Final = 1_000_000
_GROUND_KINDS: Final = ("speed", "congestion")


@dataclass(frozen=True, slots=True)
class Told:
    """An event as the chain told it first, in seconds of the scene."""

    start_s: float
    told_s: float
    actors: tuple[int, ...]  # whom its tracks followed when it was told
    event: Event


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a scene."""

    told: tuple[Told, ...]
    closed: tuple[Event, ...]
    views: tuple[View, ...]  # what the rules saw


class Ids:
    """A clock that stands, and whose ids count."""

    def __init__(self) -> None:
        self._next = 0

    def utc_ns(self) -> int:
        """Give always the same."""
        return 0

    def mono_ns(self) -> int:
        """Give always the same: nothing may depend on the machine."""
        return 0

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        """Wait not at all."""
        del timeout_s
        return event.is_set()

    def new_id(self) -> str:
        """Count."""
        self._next += 1
        return f"{self._next:032x}"


class Eye:
    """Stands for the detector, whose looks come from the scene."""

    model_id = "scene"
    is_cropping = False

    def detect(self, frame: object, areas: Sequence[Box] = ()) -> tuple[Detection, ...]:
        """See nothing."""
        del frame, areas
        return ()


def ground_of(scene: Scene) -> Ground:
    """Calibrate the scene's camera from its marks, as a technician would."""
    camera = scene.camera
    marks = tuple(
        Mark(str(index), item.x, item.y, item.x_m, item.y_m)
        for index, item in enumerate(scene.marks)
    )
    found = calibrate.fit(Survey(camera.width_px, camera.height_px, marks, scene.straights))
    return Ground(
        "scene",
        found.matrix,
        found.k1,
        camera.width_px,
        camera.height_px,
        calibrate.FOOT_SD_FRAC * camera.width_px,
        found.scale_sd_frac,
    )


def camera_of(scene: Scene, **settings: Any) -> CameraConfig:
    """Give the configuration of the scene's camera; `settings` win over the scene's rule."""
    keys = {key: value for key, value in scene.rule.items() if key != "kind"}
    rule = analytics.rule(scene.kind).Config(name=RULE, **{**keys, **settings})
    return CameraConfig(
        id="scene",
        main=Kinded("file", None),
        zones=tuple(ZoneConfig(name, points) for name, points in scene.zones.items()),
        lines=tuple(LineConfig(name, *ends) for name, ends in scene.lines.items()),
        rules=(Kinded(scene.kind, rule),),
        calibration_path=Path("scene") if scene.kind in _GROUND_KINDS else None,
    )


def detections_of(look: Look) -> list[Detection]:
    """Give what the detector says in a look, strongest first."""
    return [Detection(item.label, item.score, Box(*item.box)) for item in look.seen]


class Chain:
    """The chain of one camera, fed with looks.

    Args:
        scene: whose camera, rule and faults of identity.
        is_confused: inject the scene's id switches and swaps.
    """

    def __init__(self, scene: Scene, *, is_confused: bool = True) -> None:
        camera = camera_of(scene)
        self.tracker = Tracker(camera.tracking, MIN_SCORE)
        ground = ground_of(scene) if scene.kind in _GROUND_KINDS else None
        self.pipeline = Pipeline(camera, Eye(), MIN_SCORE, Ids(), ground)
        self._names = Names(scene, is_confused=is_confused)

    def play(self, seen: Sequence[Look]) -> Played:
        """Judge all looks, and close what is open at the end."""
        told: list[Told] = []
        closed: list[Event] = []
        views = []
        for look in seen:
            tracks = self.tracker.step(detections_of(look), look.t_us)
            view = View(look.t_us, 0, self._names.published(tracks, look))
            views.append(view)
            result = self.pipeline.apply(view, look.t_us * _NS_PER_US)
            if result.faults:
                raise RuntimeError(result.faults[0].reason)
            self._sort(result.events, view.t_us, told, closed)
        self._sort(self.pipeline.break_off("end"), seen[-1].t_us, told, closed)
        return Played(tuple(told), tuple(closed), tuple(views))

    def _sort(
        self, events: Sequence[Event], t_us: int, told: list[Told], closed: list[Event]
    ) -> None:
        known = {item.event.event_id for item in told}
        for event in events:
            if event.event_id not in known:
                known.add(event.event_id)
                start_s = event.start_utc_ns / _NS_PER_US / _US_PER_S
                actors = self._names.actors(event.track_ids)
                told.append(Told(start_s, t_us / _US_PER_S, actors, event))
            if event.state is EventState.CLOSED:
                closed.append(event)


class Names:
    """Gives tracks the ids that a confused tracker would give, and knows whom they follow."""

    def __init__(self, scene: Scene, *, is_confused: bool) -> None:
        self._switches = list(scene.switches) if is_confused else []
        self._swaps = list(scene.swaps) if is_confused else []
        self._public: dict[int, int] = {}  # tracker's id to the one that is told
        self._before: dict[int, int] = {}  # told id to the one that it carries on
        self._begun_us: dict[int, int] = {}  # told id to the first moment of its history
        self._past: dict[int, tuple[Any, ...]] = {}  # told id to what it took over in a swap
        self._actor: dict[int, int] = {}  # told id to the actor it was last seen on
        self._next = _FIRST_INJECTED

    def actors(self, track_ids: Sequence[int]) -> tuple[int, ...]:
        """Give the actors that tracks follow; a ghost's track follows nobody."""
        found = {self._actor[item] for item in track_ids if item in self._actor}
        return tuple(sorted(found))

    def published(self, tracks: Sequence[Track], look: Look) -> tuple[Track, ...]:
        """Give the tracks under the ids that the rules shall see."""
        by_box = {Box(*item.box): item.actor for item in look.seen}
        where: dict[int, Track] = {}
        for track in tracks:
            public = self._public.setdefault(track.track_id, track.track_id)
            actor = by_box.get(track.box)
            if track.missing_s == 0 and actor is not None:
                self._actor[public] = actor
                where[actor] = track
        self._confuse(look.t_us, where)
        return tuple(sorted((self._named(track) for track in tracks), key=lambda t: t.track_id))

    def _confuse(self, t_us: int, where: Mapping[int, Track]) -> None:
        for fault in [item for item in self._switches if item[0] * _US_PER_S <= t_us]:
            if fault[1] in where:
                self._switches.remove(fault)
                self._switch(where[fault[1]], t_us)
        for swap in [item for item in self._swaps if item[0] * _US_PER_S <= t_us]:
            self._swaps.remove(swap)
            if swap[1] in where and swap[2] in where:
                self._swap(where[swap[1]], where[swap[2]], t_us)

    def _switch(self, track: Track, t_us: int) -> None:
        old = self._public[track.track_id]
        self._public[track.track_id] = self._next
        self._before[self._next], self._begun_us[self._next] = old, t_us
        self._actor[self._next] = self._actor[old]
        self._next += 1

    def _swap(self, one: Track, other: Track, t_us: int) -> None:
        names = self._public[one.track_id], self._public[other.track_id]
        for name, track in zip(names, (one, other), strict=True):
            self._past[name] = tuple(
                point for point in self._named(track).history if point.t_us < t_us
            )
            self._begun_us[name] = t_us
        self._public[one.track_id], self._public[other.track_id] = names[1], names[0]
        actors = self._actor[names[0]], self._actor[names[1]]
        self._actor[names[1]], self._actor[names[0]] = actors

    def _named(self, track: Track) -> Track:
        public = self._public[track.track_id]
        begun_us = self._begun_us.get(public)
        before = self._before.get(public)
        if before is None and track.predecessor is not None:
            before = self._public.get(track.predecessor, track.predecessor)
        history = track.history
        if begun_us is not None:
            recent = tuple(point for point in history if point.t_us >= begun_us)
            history = (*self._past.get(public, ()), *recent)
        return replace(track, track_id=public, predecessor=before, history=history)
