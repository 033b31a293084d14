"""Camera health, things left and things removed: rendered faults over real footage, as told.

Every maker of `firmware_sim` is played with so many seeds through the whole pipeline without a
detector but a scripted eye that sees the people who were drawn. A fault is met when an event of its
kind and label opens while it holds; every other event is false, whatever it was.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from agent.core.clock import RealClock, SimClock
from agent.core.config import Kinded
from agent.core.model import Box, Detection, Event, EventState, Point, Zone
from agent.vision import detect, offline
from agent.vision.analytics import camera_health, object_left, object_removed
from agent.vision.analytics._contract import PATCHES, SHIFT
from agent.vision.config import CameraConfig, DetectorConfig, MotionConfig, ZoneConfig
from agent.vision.picture import Figures
from agent.vision.pipeline import Pipeline
from benchmarks._table import markdown
from drivers import file
from firmware_sim import picture_faults as faults
from firmware_sim import scene_changes as changes
from firmware_sim.picture_faults import Image, Plan, Rect, Shot, Truth

ROOT: Final = Path(__file__).parent.parent
CLIPS: Final = (
    ROOT / "firmware_sim" / "media" / "plaza.mp4",
    ROOT.parent / "shared" / "media" / "lab" / "one-by-one-person-detection.mp4",
)
OTHER_CLIPS: Final = (ROOT.parent / "shared" / "media" / "lab" / "car-detection.mp4",)
SEEDS: Final = 20
ZONE: Final = ((0.4, 0.4), (0.6, 0.4), (0.6, 0.7), (0.4, 0.7))
LATE_S: Final = 5.0  # a fault may be told so much after it has ended, in stream time
BASE_NS: Final = 1_700_000_000_000_000_000

Maker = Callable[[np.random.Generator], Plan]

HEALTH: Final[tuple[Maker, ...]] = (
    faults.untouched,
    faults.black,
    faults.covered,
    faults.overexposed,
    faults.blurred,
    faults.shifted,
    faults.turned,
    faults.frozen,
    faults.noisy,
    faults.nightfall,
    faults.lorry,
    faults.wrong_clock,
    faults.damaged,
    faults.lost,
)
THINGS: Final[tuple[Maker, ...]] = (
    changes.bag_left,
    changes.owner_returns,
    changes.person_stands,
    changes.light_switch,
    changes.sun_patch,
    changes.car_leaves,
)
ZONES: Final[tuple[Maker, ...]] = (
    changes.thing_removed,
    changes.covered_for_a_while,
    changes.watched_in_the_dark,
)


@dataclass(slots=True)
class Look:
    """A drawn picture, as the pipeline takes a frame."""

    shot: Shot
    index: int
    t_us: int = field(init=False)
    utc_ns: int = field(init=False)
    camera_utc_ns: int | None = field(init=False)
    is_corrupt: bool = field(init=False)

    def __post_init__(self) -> None:
        self.t_us = round(self.shot.t_s * 1_000_000)
        self.utc_ns = BASE_NS + self.t_us * 1000
        offset_s = self.shot.camera_offset_s
        self.camera_utc_ns = None if offset_s is None else self.utc_ns + round(offset_s * 10**9)
        self.is_corrupt = self.shot.is_corrupt

    def luma(self) -> Image:
        """Give the plane."""
        return self.shot.picture


class People:
    """An eye that sees the people who were drawn, and nothing else."""

    model_id = "people@000000000000"
    is_cropping = False

    def detect(self, frame: Any, areas: Sequence[Box] = ()) -> tuple[Detection, ...]:
        """Give them with the same score each."""
        del areas
        return tuple(Detection("person", 0.8, Box(*rect)) for rect in frame.shot.people)


def camera(rules: Sequence[Kinded], zone: Rect = (0.0, 0.0, 1.0, 1.0)) -> CameraConfig:
    """Give a camera with one zone, `place`, and these rules."""
    x, y, w, h = zone
    corners = ((x, y), (x + w, y), (x + w, y + h), (x, y + h))
    return CameraConfig(
        "cam",
        Kinded("main", None),
        zones=(ZoneConfig("place", corners),),
        rules=tuple(rules),
        motion=MotionConfig(rate_per_s=faults.LOOKS_PER_S),
    )


def health_rule(**options: Any) -> Kinded:
    """Give the rule on the camera at the sensitivity that the scenes are made for."""
    return Kinded("camera_health", camera_health.Config(name="health", on_s=12.0, **options))


def left_rule() -> Kinded:
    """Give the rule on things left."""
    config = object_left.Config(name="left", zone="place", left_s=changes.LEFT_S)
    return Kinded("object_left", config)


def removed_rule() -> Kinded:
    """Give the rule on things removed."""
    config = object_removed.Config(name="removed", zone="place", removed_s=changes.REMOVED_S)
    return Kinded("object_removed", config)


def play(plan: Plan, pictures: Sequence[Image], seed: int, rules: Sequence[Kinded]) -> list[Event]:
    """Give every opened and closed event of a scene, times in nanoseconds of `BASE_NS`."""
    pipeline = Pipeline(camera(rules, plan.zone), People(), 0.4, SimClock())
    said: list[Event] = []
    for index, shot in enumerate(faults.shots(plan, pictures, seed), 1):
        look: Any = Look(shot, index)
        said += pipeline.step(look).events
    return [*said, *pipeline.break_off("end of scene")]


@dataclass(slots=True)
class Score:
    """What one maker's scenes gave."""

    name: str
    scenes: int = 0
    wanted: int = 0
    met: int = 0
    false: list[str] = field(default_factory=list)  # label or kind, scene
    missed: list[str] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)
    ends_s: list[float] = field(default_factory=list)  # after the fault's end

    @property
    def precision(self) -> float:
        """Of what was told, the share that was so; 1 where nothing was told."""
        told = self.met + len(self.false)
        return self.met / told if told else 1.0

    @property
    def recall(self) -> float:
        """Of what was so, the share that was told; 1 where nothing was."""
        return self.met / self.wanted if self.wanted else 1.0


def score(name: str, scenes: Iterable[tuple[str, Plan, list[Event]]]) -> Score:
    """Hold the events of scenes against their truth."""
    found = Score(name)
    for scene, plan, events in scenes:
        found.scenes += 1
        opened = [event for event in events if event.state is EventState.OPEN]
        ends = {
            event.event_id: event.end_utc_ns for event in events if event.state is EventState.CLOSED
        }
        for truth in plan.truths:
            found.wanted += 1
            hit = next((event for event in opened if _is_met(truth, event)), None)
            if hit is None:
                found.missed.append(scene)
                continue
            opened.remove(hit)
            found.met += 1
            found.delays_s.append(_seconds(hit.start_utc_ns) - truth.begin_s)
            found.ends_s.append(_seconds(ends[hit.event_id] or 0) - truth.end_s)
        found.false += [
            f"{event.label or event.kind} at {_seconds(event.start_utc_ns):.1f} s in {scene}"
            for event in opened
        ]
    return found


def scenes(
    maker: Maker, clips: dict[str, list[Image]], rules: Sequence[Kinded], seeds: Iterable[int]
) -> Iterator[tuple[str, Plan, list[Event]]]:
    """Play a maker's variants over every clip in turn."""
    names = sorted(clips)
    for seed in seeds:
        clip = names[seed % len(names)]
        plan = maker(np.random.default_rng(seed))
        yield f"{plan.name} {seed} {clip}", plan, play(plan, clips[clip], seed, rules)


def table() -> str:
    """Measure, and give the tables."""
    cv2.setNumThreads(1)
    clips = {path.stem: faults.footage(path) for path in CLIPS if path.exists()}
    plaza = {"plaza": clips["plaza"]}
    groups = (
        (HEALTH, clips, health_rule()),
        ((faults.fog,), clips, health_rule()),
        (THINGS, plaza, left_rule()),
        (ZONES, clips, removed_rule()),
    )
    rows = []
    for makers, over, rule in groups:
        for maker in makers:
            found = score(maker.__name__, scenes(maker, over, [rule], range(SEEDS)))
            rows.append(_row(found, rule.kind))
    head = ("scene", "rule", "scenes", "faults", "precision", "recall", "told after", "false")
    quiet = markdown(("untouched clip", "rule", "played", "false an hour"), _quiet())
    watched = markdown(("untouched clip, real detector", "events"), _watched())
    costs = markdown(("figures asked for", "ms a look", "slowest of 100"), _costs(clips["plaza"]))
    return f"{markdown(head, rows)}\n\n{quiet}\n\n{watched}\n\n{costs}"


def _row(found: Score, kind: str) -> tuple[object, ...]:
    delays = sorted(found.delays_s)
    told = f"{delays[len(delays) // 2]:.0f} s, at most {delays[-1]:.0f}" if delays else ""
    has_faults = found.wanted > 0
    return (
        found.name.replace("_", " "),
        f"`{kind}`",
        found.scenes,
        found.wanted,
        f"{found.precision:.2f}" if has_faults else "",
        f"{found.recall:.2f}" if has_faults else "",
        told,
        len(found.false),
    )


def _quiet() -> list[tuple[object, ...]]:
    """Give the false alarms on clips that nobody touched; the footage goes to and fro."""
    seconds = 1800.0
    rows: list[tuple[object, ...]] = []
    for path in (*CLIPS, *OTHER_CLIPS):
        if not path.exists():
            continue
        pictures = {path.stem: faults.footage(path)}
        for rule in (health_rule(), left_rule(), removed_rule()):

            def maker(_dice: np.random.Generator) -> Plan:
                return Plan("untouched", seconds)

            found = score(path.stem, scenes(maker, pictures, [rule], range(1)))
            hours = seconds / 3600
            rows.append((path.stem, f"`{rule.kind}`", f"{hours:g} h", len(found.false) / hours))
    return rows


def _watched() -> list[tuple[object, ...]]:
    """Give the events of all three rules on whole clips, with the real detector."""
    rules = (health_rule(), left_rule(), removed_rule())
    watching = replace(camera(rules), motion=MotionConfig())
    eye = detect.load(DetectorConfig(model="int8"), RealClock())
    rows: list[tuple[object, ...]] = []
    for path in (*CLIPS, *OTHER_CLIPS):
        if path.exists():
            source = file.build(file.Config(path), RealClock())
            told = list(offline.analyse_lines(source, watching, eye, 0.4, RealClock()))
            opened = sum(item["event"]["state"] == "open" for item in told)
            rows.append((path.stem, opened))
    return rows


def _costs(pictures: Sequence[Image]) -> list[tuple[object, ...]]:
    """Give the time of the figures of a look, by what is asked for."""
    rows: list[tuple[object, ...]] = []
    zone = {"place": Zone("place", tuple(Point(x, y) for x, y in ZONE))}
    for name, asked, zones in (
        ("light, sharpness, change", frozenset[str](), {}),
        ("and the shift", frozenset({SHIFT}), {}),
        ("and patches", frozenset({PATCHES}), {}),
        ("and one zone's likeness", frozenset[str](), zone),
        ("all", frozenset({SHIFT, PATCHES}), zone),
    ):
        figures = Figures(asked, zones)
        took_ms = []
        for index in range(400):
            shot = Shot(index / 5, pictures[index % len(pictures)])
            look = Look(shot, index + 1)
            begun = time.perf_counter()
            figures.step(shot.picture, look, ())
            took_ms.append((time.perf_counter() - begun) * 1000)
        settled = sorted(took_ms[200:])
        mean = sum(settled) / len(settled)
        rows.append((name, f"{mean:.2f}", f"{settled[-len(settled) // 100 - 1]:.2f}"))
    return rows


def _is_met(truth: Truth, event: Event) -> bool:
    at_s = _seconds(event.start_utc_ns)
    is_it = (event.kind, event.label) == (truth.kind, truth.label)
    return is_it and truth.begin_s <= at_s <= truth.end_s + LATE_S


def _seconds(utc_ns: int) -> float:
    return (utc_ns - BASE_NS) / 10**9
