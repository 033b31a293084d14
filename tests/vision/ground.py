"""A camera six metres up that looks down the road, for rules on calibrated ground."""

import math

from agent.core.model import Box, Sight, Track, TrackPoint
from agent.vision.analytics import Ground

HEIGHT_M, TILT_DEG, FOCAL, SIZE = 6.0, 20.0, 0.9, (1920, 1080)


def ground(sd_px: float = 1.0) -> Ground:
    """Matrix of the camera above: X to the right, Y ahead of its foot, in metres."""
    s, c = math.sin(math.radians(TILT_DEG)), math.cos(math.radians(TILT_DEG))
    # Ray (u/f, v/f, 1) hits the ground where its height is zero.
    matrix = (
        HEIGHT_M / FOCAL, 0.0, 0.0,
        0.0, -HEIGHT_M * s / FOCAL, HEIGHT_M * c,
        0.0, c / FOCAL, s,
    )  # fmt: skip
    return Ground("made", matrix, 0.0, *SIZE, sd_px)


def seen(x_m: float, y_m: float) -> tuple[float, float]:
    """Where a place on the ground appears, in fractions."""
    s, c = math.sin(math.radians(TILT_DEG)), math.cos(math.radians(TILT_DEG))
    depth = y_m * c + HEIGHT_M * s
    down = -y_m * s + HEIGHT_M * c
    u, v = FOCAL * x_m / depth, FOCAL * down / depth
    return 0.5 + u, 0.5 + v * SIZE[0] / SIZE[1]


def driver(track_id, place, t_us, fps=5.0, since_us=0):
    """A vehicle's track whose ground place is a function of seconds."""
    times = [
        since_us + round(n * 1e6 / fps) for n in range(round((t_us - since_us) * fps / 1e6) + 1)
    ]
    history = []
    for at_us in times:
        x, y = seen(*place(at_us / 1e6))
        history.append(TrackPoint(at_us, Box(x - 0.03, y - 0.06, 0.06, 0.06), Sight.DETECTED))
    missing_s = (t_us - history[-1].t_us) / 1e6
    return Track(
        track_id,
        "vehicle",
        0.9,
        history[-1].box,
        (t_us - since_us) / 1e6,
        missing_s,
        tuple(history),
    )
