"""Paths as tracks: what a tracker would hand to the rules, made from a function of time."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agent.core.model import Box, Phase, Sight, Signal, Track, TrackPoint, View

Path = Callable[[float], tuple[float, float]]

WIDTH, HEIGHT = 0.02, 0.06


def box_at(x: float, y: float) -> Box:
    """A box whose foot stands at (x, y)."""
    return Box(x - WIDTH / 2, y - HEIGHT, WIDTH, HEIGHT)


def track(
    points: Sequence[tuple[int, float, float]],
    *,
    track_id: int = 1,
    label: str = "person",
    t_us: int | None = None,
    unseen: Sequence[int] = (),
    score: float = 0.8,
) -> Track:
    """A track with the given foot points; times in `unseen` are predictions."""
    history = tuple(
        TrackPoint(at_us, box_at(x, y), Sight.PREDICTED if at_us in unseen else Sight.DETECTED)
        for at_us, x, y in points
    )
    observed = [point for point in history if point.is_detected]
    now_us = points[-1][0] if t_us is None else t_us
    return Track(
        track_id,
        label,
        score,
        history[-1].box,
        age_s=(now_us - history[0].t_us) / 1e6,
        missing_s=(now_us - observed[-1].t_us) / 1e6,
        history=history,
    )


def views(
    path: Path, seconds: float, fps: float, *, track_id: int = 1, label: str = "person"
) -> list[View]:
    """One object along a path, then two and a half seconds without it."""
    made, points = [], []
    count = int(seconds * fps) + 1
    for index in range(count):
        t_us = round(index * 1e6 / fps)
        points.append((t_us, *path(t_us / 1e6)))
        made.append(View(t_us, 0, (track(points, track_id=track_id, label=label),)))
    last_us = made[-1].t_us
    made += [View(last_us + round(step * 1e6 / fps), 0, ()) for step in range(1, int(2.5 * fps))]
    return made


def play(module, made: Sequence[View], rule, places) -> list:
    """All signals of a rule over the views."""
    state, said = module.initial(), []
    for view in made:
        state, signals = module.step(view, state, rule, places)
        said += signals
    return said


@dataclass(frozen=True)
class Actor:
    """One object of a scene: where it is over time, and when it is there and seen."""

    track_id: int
    path: Path
    begin_s: float = 0.0
    end_s: float = math.inf
    label: str = "person"
    hidden: tuple[float, float] = (math.inf, math.inf)  # from, to
    becomes: tuple[float, int] = (math.inf, 0)  # from then on under this id

    def id_at(self, t_s: float) -> int:
        return self.becomes[1] if t_s >= self.becomes[0] else self.track_id

    def is_seen(self, t_s: float) -> bool:
        return self.begin_s <= t_s <= self.end_s and not self.hidden[0] <= t_s < self.hidden[1]


def stand(x: float, y: float) -> Path:
    """Stay at a place."""
    return lambda _t: (x, y)


def walk(*stops: tuple[float, float, float]) -> Path:
    """Go from stop to stop, each (t_s, x, y), straight and evenly."""

    def path(t_s: float) -> tuple[float, float]:
        if t_s <= stops[0][0]:
            return stops[0][1:]
        for (t0, x0, y0), (t1, x1, y1) in itertools.pairwise(stops):
            if t_s <= t1:
                share = (t_s - t0) / (t1 - t0)
                return x0 + share * (x1 - x0), y0 + share * (y1 - y0)
        return stops[-1][1:]

    return path


def scene(actors: Sequence[Actor], seconds: float, fps: float = 5.0) -> list[View]:
    """What a perfect tracker would show of the actors; a lost track is kept for two seconds."""
    made = []
    seen: dict[int, list[tuple[int, float, float]]] = {}
    origin: dict[int, int] = {}
    for index in range(int(seconds * fps) + 1):
        t_s = index / fps
        tracks = []
        for actor in actors:
            track_id = actor.id_at(t_s)
            if track_id != actor.track_id and track_id not in seen and actor.is_seen(t_s):
                origin[track_id] = actor.track_id
            if actor.is_seen(t_s):
                seen.setdefault(track_id, []).append((round(t_s * 1e6), *actor.path(t_s)))
            points = seen.get(track_id, [])
            if points and round(t_s * 1e6) - points[-1][0] <= 2_000_000:
                found = track(points, track_id=track_id, label=actor.label, t_us=round(t_s * 1e6))
                tracks.append(replace(found, predecessor=origin.get(track_id)))
        made.append(View(round(t_s * 1e6), 0, tuple(tracks)))
    return made


def phases(said: Sequence[Signal], phase: Phase) -> list[Signal]:
    """The signals of one phase."""
    return [signal for signal in said if signal.phase is phase]
