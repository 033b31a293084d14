"""Every rule on made scenes: what is found, what is false, how late, at which rates.

OUTPOST_SCENES=N ./run bench rules    (200 scenes a kind; 1000 takes a quarter of an hour)

The scenes are people and vehicles on a ground plane under a pinhole camera, seen by a detector that
trembles, misses, has ghosts and mixes up ids (`firmware_sim/scenes`); the truth is told by a second
implementation of docs/ANALYTICS.md that shares no code with the rules. Events whose existence hangs
on a hair (a threshold met or missed by less than a margin) are scored neither way.
"""

import csv
import itertools
import os
import statistics
import time
from collections.abc import Sequence
from typing import Final

import numpy as np

from agent.core.clock import RealClock
from agent.core.model import Box, Point, Sight, Track, TrackPoint, View, Zone
from agent.vision import detect, offline
from agent.vision.analytics._area import area
from agent.vision.config import DetectorConfig, TrackConfig
from agent.vision.pipeline import Pipeline
from agent.vision.track import Tracker
from benchmarks._chain import MIN_SCORE, Chain, Eye, Ids, Told, camera_of, detections_of, ground_of
from benchmarks._footage import ANNOTATED, PLAZA
from benchmarks._identity import Frame, Identity, identity
from benchmarks._score import Score, matched
from benchmarks._table import markdown
from drivers import file
from firmware_sim.scenes import KINDS, NOISELESS, Look, Scene, Truth, looks, scene_for, truth_of
from firmware_sim.scenes.stage import cast

SCENES: Final = int(os.environ.get("OUTPOST_SCENES", "200"))
FIRST_SEED: Final = 20_000
FPS: Final = 5
RATES: Final = (2, 5, 10, 15)
DROPS: Final = 0.2
TRACKS: Final = 20
STEPS: Final = 200
GROUND: Final = ("speed", "congestion")
_BRIDGED_S: Final = 0.5  # between two looks a track is where it is predicted
PLAZA_PX: Final = (768, 576)
PLAZA_PICTURES: Final = 65


def table() -> str:
    """Measure, and give the tables."""
    parts = (_found, _rates, _dwell, _speed, _identities)
    return "\n\n".join(part() for part in parts)


def _scenes(kind: str, count: int) -> list[Scene]:
    return [scene_for(kind, seed) for seed in range(FIRST_SEED, FIRST_SEED + count)]


def _found() -> str:
    """Score every kind at one rate, and time a step of it."""
    rows = []
    for kind in KINDS:
        score = Score()
        for scene in _scenes(kind, SCENES):
            score.take(scene, truth_of(scene), Chain(scene).play(looks(scene, FPS)), 1 / FPS)
        delays = sorted(score.delays_s)
        rows.append(
            (
                kind,
                f"{score.hits + score.misses:,}",
                f"{score.precision:.3f}",
                f"{score.recall:.3f}",
                f"{statistics.median(delays):.2f}",
                f"{delays[int(0.95 * len(delays))]:.2f}",
                f"{_step_ms(kind):.3f}",
            )
        )
    head = ["kind", "events", "precision", "recall", "delay s", "p95", f"ms at {TRACKS} tracks"]
    return f"{SCENES} scenes a kind at {FPS} looks a second:\n\n" + markdown(head, rows)


def _step_ms(kind: str) -> float:
    """Time a step over a crowd; the pipeline's own share is in it."""
    scene = scene_for(kind, FIRST_SEED)
    ground = ground_of(scene) if kind in GROUND else None
    pipeline = Pipeline(camera_of(scene), Eye(), MIN_SCORE, Ids(), ground)
    views = [_crowd(step) for step in range(STEPS)]
    begun_s = time.thread_time()
    for view in views:
        pipeline.apply(view, view.t_us * 1000)
    return (time.thread_time() - begun_s) / STEPS * 1000


def _crowd(step: int) -> View:
    """Give tracks that walk about the whole picture, a second of history behind each."""
    tracks = []
    for number in range(TRACKS):
        points = []
        for past in range(max(0, step - FPS), step + 1):
            x = 0.5 + 0.45 * np.sin(0.05 * past + number)
            y = 0.55 + 0.4 * np.cos(0.03 * past + 2.0 * number)
            box = Box(float(x) - 0.02, float(y) - 0.1, 0.04, 0.1)
            points.append(TrackPoint(past * 1_000_000 // FPS, box, Sight.DETECTED))
        label = ("person", "vehicle")[number % 2]
        tracks.append(Track(number + 1, label, 0.8, points[-1].box, 9.0, 0.0, tuple(points)))
    return View(step * 1_000_000 // FPS, 0, tuple(tracks))


def _rates() -> str:
    """Say how many events begin at the same moment at every rate, with a fifth of looks lost."""
    count = max(10, SCENES // 5)
    rows = []
    for kind in KINDS:
        if kind == "counting":  # its reports have fixed times
            continue
        shares = []
        scenes = _scenes(kind, count)
        every = [_exactly(scene, RATES[-1], 0.0) for scene in scenes]
        for fps in RATES:
            away_s = [
                away
                for scene, told in zip(scenes, every, strict=True)
                for away in _moved_s(told, _exactly(scene, fps, DROPS))
            ]
            near = sum(away <= 1 / fps for away in away_s)
            shares.append(f"{100 * near / max(1, len(away_s)):.0f} %")
        rows.append((kind, *shares))
    head = ["begins within one interval", *(f"{fps}/s" for fps in RATES)]
    return (
        f"{DROPS:.0%} of the looks lost, against the same rule at {RATES[-1]}/s with none lost;"
        f" boxes exact, {count} scenes:\n\n" + markdown(head, rows)
    )


def _exactly(scene: Scene, fps: int, drop_share: float) -> tuple[Told, ...]:
    seen = looks(scene, fps, drop_share=drop_share, noise=NOISELESS)
    return Chain(scene, is_confused=False).play(seen).told


def _moved_s(told: Sequence[Told], others: Sequence[Told]) -> list[float]:
    """Give for each event how far away the nearest one of the same object begins."""
    found = []
    for one in told:
        near = [abs(one.start_s - it.start_s) for it in others if set(it.actors) & set(one.actors)]
        found.append(min(near, default=float("inf")))
    return found


def _dwell() -> str:
    """Compare the moment of loitering with a rule that counts pictures."""
    count = max(10, SCENES // 5)
    rows = []
    for fps in (2, 5, 15):
        ours, theirs = [], []
        for scene in _scenes("loiter", count):
            seen = looks(scene, fps, drop_share=DROPS, noise=NOISELESS)
            truth = [item for item in truth_of(scene) if not item.is_doubtful]
            told = Chain(scene, is_confused=False).play(seen).told
            pairs, _, _ = matched(truth, told, 4.0)
            ours += [abs(one.start_s - other.start_s) for one, other in pairs]
            theirs += [_counted_s(scene, fps, item, seen) for item in truth]
        rows.append((f"{fps}/s", *_spread(ours), *_spread(theirs)))
    head = ["rate", "ours off s", "worst", "counting pictures off s", "worst"]
    return (
        "Loitering, beside the usual recorder's rule as documented (seconds times the configured"
        f" rate, counted in pictures, never reset), {DROPS:.0%} of the pictures lost:\n\n"
        + markdown(head, rows)
    )


def _counted_s(scene: Scene, fps: int, item: Truth, seen: Sequence[Look]) -> float:
    """Give how far off a rule is that counts pictures with the foot in the zone."""
    dwell_s = float(str(scene.rule["dwell_s"]))
    corners = tuple(Point(x, y) for x, y in next(iter(scene.zones.values())))
    zone = area(Zone("zone", corners), 0.0)
    needed, told_s = dwell_s * fps, scene.seconds
    for look in seen:
        feet = [Box(*one.box).foot for one in look.seen if one.actor in item.objects]
        needed -= any(zone.depth(foot) >= 0 for foot in feet)
        if needed <= 0:
            told_s = look.t_us / 1e6
            break
    return abs(told_s - item.start_s)


def _spread(off_s: Sequence[float]) -> tuple[str, str]:
    return f"{statistics.median(off_s):.2f}", f"{max(off_s):.2f}"


def _speed() -> str:
    """Compare told speeds with true ones on the tilted plane that every camera sees."""
    rows = []
    for name, noise in (("exact boxes", NOISELESS), ("trembling boxes", None)):
        off_pct, is_covered = [], []
        for scene in _scenes("speed", max(20, SCENES // 2)):
            truth = [item for item in truth_of(scene) if not item.is_doubtful]
            played = Chain(scene).play(looks(scene, FPS, noise=noise))
            pairs, _, _ = matched(truth, played.told, 2.0)
            closed = {event.event_id: event.measured for event in played.closed}
            for one, told in pairs:
                measured = closed.get(told.event.event_id, told.event.measured)
                off = measured["speed_kmh"] - one.measured["speed_kmh"]
                off_pct.append(100 * abs(off) / one.measured["speed_kmh"])
                is_covered.append(abs(off) <= measured["error_kmh"])
        rows.append(
            (
                name,
                len(off_pct),
                f"{statistics.median(off_pct):.1f}",
                f"{sorted(off_pct)[int(0.95 * len(off_pct))]:.1f}",
                f"{100 * sum(is_covered) / len(is_covered):.0f}",
            )
        )
    head = ["speed", "events", "off %, median", "p95", "within its told error, %"]
    return "Highest speed of an event against the true one:\n\n" + markdown(head, rows)


def _identities() -> str:
    rows: list[tuple[object, ...]] = []
    for fps in (2, 5):
        made = Identity()
        for kind in ("crowd", "line_cross", "wrong_way"):
            for scene in _scenes(kind, max(10, SCENES // 10)):
                made += _followed(scene, fps)
        rows.append((f"made, {fps}/s", f"{made.idf1:.3f}", made.switches, made.true))
    rows += _real()
    head = ["tracks", "IDF1", "switches", "true boxes"]
    return "The tracker's identities:\n\n" + markdown(head, rows)


def _followed(scene: Scene, fps: int) -> Identity:
    tracker = Tracker(TrackConfig(), MIN_SCORE)
    seen = looks(scene, fps)
    shown = cast(scene, np.array([look.t_us for look in seen]) / 1e6)
    truth: list[Frame] = [
        {
            row: _sides(shown.boxes[row, column].tolist())
            for row in np.flatnonzero(shown.is_seen[:, column]).tolist()
        }
        for column in range(len(seen))
    ]
    told: list[Frame] = []
    for look in seen:
        found = detections_of(look)
        told.append(_boxes(tracker.step(found, look.t_us)))
    return identity(truth, told)


def _sides(box: Sequence[float]) -> tuple[float, float, float, float]:
    left, top, width, height = box
    return left, top, width, height


def _boxes(tracks: Sequence[Track], missing_s: float = 0.0) -> Frame:
    return {
        item.track_id: (item.box.x, item.box.y, item.box.w, item.box.h)
        for item in tracks
        if item.missing_s <= missing_s
    }


def _real() -> list[tuple[object, ...]]:
    """Follow real detections over the annotated pictures of the plaza, which may not be ours."""
    if not ANNOTATED.exists():
        return [("plaza (annotation not here)", "-", "-", "-")]
    truth = _annotated()
    detector = detect.load(DetectorConfig(model="int8"), RealClock())
    source = file.build(file.Config(PLAZA), RealClock())
    pictures = list(itertools.islice(offline.frames(source), PLAZA_PICTURES))
    rows: list[tuple[object, ...]] = []
    for every, name in ((5, "2/s"), (2, "5/s")):
        tracker, told = Tracker(TrackConfig(), MIN_SCORE), []
        for picture in pictures:
            looked = detector.detect(picture) if picture.index % every == 1 else None
            told.append(_boxes(tracker.step(looked, picture.t_us), _BRIDGED_S))
        kept = [
            (truth[p.index], t) for p, t in zip(pictures, told, strict=True) if p.index in truth
        ]
        sums = identity([one for one, _ in kept], [other for _, other in kept])
        rows.append((f"plaza, {name}", f"{sums.idf1:.3f}", sums.switches, sums.true))
    return rows


def _annotated() -> dict[int, Frame]:
    """Give the true persons by picture and identity, in fractions of the picture."""
    found: dict[int, dict[int, tuple[float, float, float, float]]] = {}
    width, height = PLAZA_PX
    with ANNOTATED.open() as stream:
        for row in csv.reader(stream):
            if row[0].isdigit():
                x, y, w, h = (float(part) for part in row[2:6])
                box = (x / width, y / height, w / width, h / height)
                found.setdefault(int(row[0]), {})[int(row[1])] = box
    return dict(found)
