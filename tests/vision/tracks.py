"""Paths as tracks: what a tracker would hand to the rules, made from a function of time."""

from collections.abc import Callable, Sequence

from agent.core.model import Box, Sight, Track, TrackPoint, View

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
