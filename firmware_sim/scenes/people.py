"""Scripts with people: entering, crossing a line, staying, gathering, walking on the road."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from firmware_sim.scenes.stage import Actor, Polygon, Segment
from firmware_sim.scenes.studio import Spot, Studio, along_side, drawn, quad

LABELS: Final = ("person",)


@dataclass(frozen=True, slots=True)
class Script:
    """What a scene is made of, before the camera and the seed are added."""

    actors: list[Actor]
    rule: dict[str, object]
    zones: dict[str, Polygon] = field(default_factory=dict)
    lines: dict[str, Segment] = field(default_factory=dict)
    seconds: float = 0.0  # 0: until the last actor has gone


def _yard(studio: Studio) -> Polygon:
    centre = (studio.between(0.4, 0.6), studio.between(0.56, 0.66))
    return quad(studio, centre, (studio.between(0.14, 0.2), studio.between(0.12, 0.17)))


def _outside(studio: Studio, zone: Polygon) -> Spot:
    """Give a spot well outside a zone, at one of its sides."""
    side = studio.whole(0, 3)
    near, far = along_side(zone, side, -studio.between(0.06, 0.12), 0.0)
    share = studio.between(0.25, 0.75)
    return near[0] + share * (far[0] - near[0]), near[1] + share * (far[1] - near[1])


def _inside(studio: Studio, zone: Polygon) -> Spot:
    """Give a spot well inside a zone."""
    x = sum(corner[0] for corner in zone) / len(zone)
    y = sum(corner[1] for corner in zone) / len(zone)
    corner = zone[studio.whole(0, len(zone) - 1)]
    share = studio.between(0.0, 0.55)
    return x + share * (corner[0] - x), y + share * (corner[1] - y)


def _at_border(studio: Studio, zone: Polygon, inward: float) -> Spot:
    near, far = along_side(zone, studio.whole(0, 3), inward, 0.0)
    share = studio.between(0.3, 0.7)
    return near[0] + share * (far[0] - near[0]), near[1] + share * (far[1] - near[1])


def zone_enter(studio: Studio) -> Script:
    """People pass, graze the edge, turn back before it, come out of a door inside."""
    zone = _yard(studio)
    plots: dict[str, Callable[[], Sequence[Spot]]] = {
        "pass": lambda: [_outside(studio, zone), _inside(studio, zone), _outside(studio, zone)],
        "graze in": lambda: along_side(
            zone, studio.whole(0, 3), studio.between(0.035, 0.05), studio.between(0.04, 0.07)
        ),
        "graze out": lambda: along_side(
            zone, studio.whole(0, 3), -studio.between(0.03, 0.05), studio.between(0.04, 0.07)
        ),
        "turn back": lambda: [
            _outside(studio, zone),
            _at_border(studio, zone, -studio.between(0.03, 0.05)),
            _outside(studio, zone),
        ],
        "comes out of a door": lambda: [_inside(studio, zone), _outside(studio, zone)],
        "goes into a door": lambda: [_outside(studio, zone), _inside(studio, zone)],
    }
    actors, start_s = [], 1.0
    for _ in range(studio.whole(2, 4)):
        plot = studio.one_of(list(plots))
        pauses = {1: studio.between(2.0, 6.0)} if studio.is_so(0.4) else {}
        actors.append(studio.walk(plots[plot](), start_s=start_s, pauses_s=pauses, plot=plot))
        start_s += studio.between(1.5, 8.0)
    rule = {
        "zone": "yard",
        "labels": LABELS,
        "min_inside_s": studio.between(0.8, 1.6) if studio.is_so(0.3) else 0.0,
        "hysteresis_frac": 0.01,
        "grace_s": 2.0,
    }
    return Script(actors, rule, {"yard": zone})


def _fence(studio: Studio) -> Segment:
    """Give a line through the middle, steep enough to be met on both sides."""
    x, y = studio.between(0.42, 0.58), studio.between(0.55, 0.65)
    dx, dy = studio.between(-0.08, 0.08), studio.between(0.14, 0.2)
    if studio.is_so(0.4):
        dx, dy = studio.between(0.18, 0.28), studio.between(-0.05, 0.05)
    ends = drawn([(x - dx, y - dy), (x + dx, y + dy)])
    return (ends[0], ends[1]) if studio.is_so(0.5) else (ends[1], ends[0])


def _beside(line: Segment, along: float, right: float) -> Spot:
    """Give a spot by its share along a line and its distance to the line's right."""
    (x0, y0), (x1, y1) = line
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
    nx, ny = -(y1 - y0) / length, (x1 - x0) / length
    return x0 + along * (x1 - x0) + right * nx, y0 + along * (y1 - y0) + right * ny


def _crosser(studio: Studio, line: Segment, start_s: float) -> Actor:
    side = 1.0 if studio.is_so(0.5) else -1.0
    here, there = studio.between(0.25, 0.75), studio.between(0.25, 0.75)
    reach = studio.between(0.08, 0.16)
    plots = {
        "cross": [_beside(line, here, side * reach), _beside(line, there, -side * reach)],
        "touch": [
            _beside(line, here, side * reach),
            _beside(line, (here + there) / 2, side * studio.between(0.025, 0.04)),
            _beside(line, there, side * reach),
        ],
        "there and back": [
            _beside(line, here, side * reach),
            _beside(line, (here + there) / 2, -side * studio.between(0.04, 0.08)),
            _beside(line, there, side * reach),
        ],
        "stand at it": [
            _beside(line, here, side * reach),
            _beside(line, there, side * studio.between(0.022, 0.03)),
            _beside(line, there, side * reach),
        ],
        "round the end": [
            _beside(line, 0.5, side * reach),
            _beside(line, 1.0, side * 0.06),
            _beside(line, 1.0 + studio.between(0.15, 0.25), 0.0),
            _beside(line, 1.0, -side * 0.06),
        ],
    }
    plot = studio.one_of(["cross", *plots])
    pauses = {1: studio.between(4.0, 9.0)} if plot == "stand at it" else {}
    if plot in ("touch", "there and back"):
        pauses = {1: studio.between(0.5, 1.5)}
    speed = studio.between(2.0, 3.5) if studio.is_so(0.2) else None
    return studio.walk(plots[plot], start_s=start_s, pauses_s=pauses, speed_mps=speed, plot=plot)


def line_cross(studio: Studio) -> Script:
    """People cross, touch the line and turn back, stand at it, go round its end."""
    line = _fence(studio)
    actors, start_s = [], 1.0
    for _ in range(studio.whole(2, 4)):
        actors.append(_crosser(studio, line, start_s))
        start_s += studio.between(0.5, 6.0)
    rule = {
        "line": "fence",
        "labels": LABELS,
        "direction": studio.one_of(["both", "both", "a_to_b", "b_to_a"]),
        "hysteresis_frac": 0.01,
        "max_unseen_s": 4.0,
    }
    return Script(actors, rule, lines={"fence": line})


def counting(studio: Studio) -> Script:
    """Many cross a line, both ways."""
    line = _fence(studio)
    every_s = studio.between(15.0, 25.0)
    actors = []
    for number in range(2):
        for _ in range(studio.whole(1, 3)):
            latest_s = max(2.0, every_s - 12.0)
            actors.append(_crosser(studio, line, number * every_s + studio.between(1.5, latest_s)))
    rule = {
        "line": "fence",
        "labels": LABELS,
        "report_s": every_s,
        "hysteresis_frac": 0.01,
        "max_unseen_s": 4.0,
    }
    return Script(actors, rule, lines={"fence": line}, seconds=2 * every_s + 3.0)


def loiter(studio: Studio) -> Script:
    """People stay too long or not quite, are hidden for a while, leave and come back."""
    zone = _yard(studio)
    dwell_s, grace_s = studio.between(9.0, 13.0), studio.between(4.0, 6.0)
    actors: list[Actor] = []
    spots: list[Spot] = []
    start_s = 1.0
    for _ in range(studio.whole(1, 3)):
        spots += [_free(studio, zone, spots), _free(studio, zone, spots)]
        times = (dwell_s, grace_s, start_s)
        actors.append(_loiterer(studio, zone, (spots[-2], spots[-1]), times))
        start_s += studio.between(1.0, 5.0)
    rule = {
        "zone": "yard",
        "labels": LABELS,
        "dwell_s": dwell_s,
        "grace_s": grace_s,
        "hysteresis_frac": 0.01,
    }
    return Script(actors, rule, {"yard": zone})


def _loiterer(
    studio: Studio, zone: Polygon, spots: tuple[Spot, Spot], times_s: tuple[float, float, float]
) -> Actor:
    dwell_s, grace_s, start_s = times_s
    plot = studio.one_of(
        ["long", "wander", "short", "hidden a moment", "hidden long", "two visits"]
    )
    door, (spot, other) = _outside(studio, zone), spots
    if plot == "short":
        stay = studio.between(0.05, 0.25) * dwell_s
        quick = studio.between(1.3, 1.8)
        stops = [door, spot, door]
        return studio.walk(stops, start_s=start_s, pauses_s={1: stay}, speed_mps=quick, plot=plot)
    if plot == "two visits":
        stay = studio.between(0.1, 0.3) * dwell_s
        stops = [door, spot, door, spot, door]
        pauses = {1: stay, 2: studio.between(1.0, 3.0), 3: stay}
        return studio.walk(stops, start_s=start_s, pauses_s=pauses, plot=plot)
    if plot == "wander":
        stops = [door, *(_inside(studio, zone) for _ in range(studio.whole(4, 6))), door]
        pauses = {number: studio.between(2.0, 4.0) for number in range(1, len(stops) - 1)}
        return studio.walk(stops, start_s=start_s, pauses_s=pauses, plot=plot)
    first, second = dwell_s * studio.between(1.0, 1.2), dwell_s * studio.between(0.9, 1.1)
    if plot == "hidden long" and studio.is_so(0.5):  # neither before nor after it is long enough
        first, second = 0.3 * dwell_s, 0.05 * dwell_s
    walker = studio.walk(
        [door, spot, other, door], start_s=start_s, pauses_s={1: first, 2: second}, plot=plot
    )
    if plot == "long":
        return walker
    lasts_s = grace_s * (studio.between(0.3, 0.7) if plot == "hidden a moment" else 1.0)
    if plot == "hidden long":
        lasts_s += studio.between(1.5, 3.0)
    begin = walker.pace.reaches_s(float(walker.way.lengths[2]) - 1e-6) + 0.3 * first
    return _hidden(walker, begin, lasts_s)


def _hidden(actor: Actor, begin_s: float, lasts_s: float) -> Actor:
    return replace(actor, hidden=((begin_s, begin_s + lasts_s),))


def crowd(studio: Studio) -> Script:
    """A group forms and dissolves; sometimes one too few, sometimes one steps out for a moment."""
    zone = quad(studio, (0.5, 0.62), (studio.between(0.22, 0.28), studio.between(0.16, 0.2)))
    enough = studio.whole(3, 5)
    count = enough + studio.whole(-1, 2)
    actors: list[Actor] = []
    spots: list[Spot] = []
    gather_s, stay_s = studio.between(0.0, 6.0), studio.between(9.0, 15.0)
    for _ in range(count):
        spot = _free(studio, zone, spots)
        spots.append(spot)
        door = _outside(studio, zone)
        start = 1.0 + studio.between(0.0, gather_s)
        pauses = {1: stay_s + studio.between(-2.0, 2.0)}
        actors.append(studio.walk([door, spot, door], start_s=start, pauses_s=pauses, plot="in"))
    for _ in range(studio.whole(0, 2)):
        stops = [_outside(studio, zone), _outside(studio, zone)]
        start = studio.between(1.0, 6.0)
        actors.append(studio.walk(stops, start_s=start, pauses_s={0: 6.0}, plot="bystander"))
    rule = {
        "zone": "yard",
        "labels": LABELS,
        "min_count": enough,
        "on_s": studio.between(2.0, 4.0),
        "off_s": studio.between(3.0, 5.0),
        "hysteresis_frac": 0.01,
    }
    return Script(actors, rule, {"yard": zone})


def _free(studio: Studio, zone: Polygon, taken: list[Spot]) -> Spot:
    """Give a spot inside, beside those taken where there is room."""
    spot = _inside(studio, zone)
    for _ in range(40):
        spot = _inside(studio, zone)
        if all(abs(spot[0] - x) > 0.05 or abs(spot[1] - y) > 0.15 for x, y in taken):  # noqa: PLR2004 - a person's width and height
            break
    return spot


def pedestrian_on_road(studio: Studio) -> Script:
    """People on the crossing, beside it, along the kerb, and a step onto the road and back."""
    y, half = studio.between(0.6, 0.66), studio.between(0.14, 0.18)
    slant = studio.between(-0.04, 0.04)
    road = drawn(
        [
            (0.06, y - half - slant),
            (0.94, y - half + slant),
            (0.94, y + half + slant),
            (0.06, y + half - slant),
        ]
    )
    x = studio.between(0.3, 0.7)
    crossing = drawn(
        [(x - 0.08, y - 0.26), (x + 0.08, y - 0.26), (x + 0.09, y + 0.26), (x - 0.09, y + 0.26)]
    )
    on_s = studio.between(0.8, 1.6)
    actors, start_s = [], 1.0
    for _ in range(studio.whole(2, 4)):
        actors.append(_walker(studio, road, (x, y, half), start_s))
        start_s += studio.between(1.0, 6.0)
    rule = {
        "zone": "road",
        "exclude": ("crossing",),
        "labels": LABELS,
        "on_s": on_s,
        "hysteresis_frac": 0.01,
        "grace_s": 3.0,
    }
    return Script(actors, rule, {"road": road, "crossing": crossing})


def _walker(
    studio: Studio, road: Polygon, middle: tuple[float, float, float], start_s: float
) -> Actor:
    x, y, half = middle
    is_left = x > 0.5  # noqa: PLR2004 - the wider half of the road
    off = studio.between(0.12, 0.25) if is_left else studio.between(0.75, 0.88)
    above, below = y - half - studio.between(0.06, 0.09), y + half + studio.between(0.06, 0.1)
    plots = {
        "on the crossing": [(x + studio.between(-0.03, 0.03), above), (x, below)],
        "beside the crossing": [(off, above), (off + 0.03, below)],
        "steps on and back": [(off, above), (off, y - half + 0.03), (off, above)],
        "along the kerb": along_side(road, 0, -studio.between(0.035, 0.05), -0.05),
        "along the road": [(off, above), (off, y), (x, y), (x, below)],
        "leaves the crossing": [(x, above), (x, y), (off, y + 0.02), (off, below)],
    }
    plot = studio.one_of(list(plots))
    stops = list(plots[plot])
    if studio.is_so(0.5):
        stops.reverse()
    pace = studio.between(2.5, 3.2) if plot == "steps on and back" else studio.between(0.7, 1.1)
    return studio.walk(stops, start_s=start_s, speed_mps=pace, plot=plot)


def counter_flow(studio: Studio) -> Script:
    """A stream through a corridor, and one against it, across it, or turning back a little."""
    zone = quad(studio, (0.5, 0.62), (studio.between(0.26, 0.3), studio.between(0.12, 0.16)))
    enough, is_leftward = studio.whole(3, 5), studio.is_so(0.5)
    actors: list[Actor] = []
    start_s = 0.5
    count = enough + studio.whole(0, 3)
    has_stream = studio.is_so(0.85)
    for number in range(count if has_stream else enough - 1):
        actors.append(_through(studio, is_leftward, start_s, number))
        start_s += studio.between(1.2, 3.0)
    start_s = max(actor.vanishes_s for actor in actors) + studio.between(0.5, 2.0)
    x0, x1 = (0.9, 0.1) if is_leftward else (0.1, 0.9)
    y = studio.between(0.58, 0.66)
    plots = {
        "against": [(x1, y), (x0, y)],
        "also with": [(x0, y), (x1, y)],
        "across": [(0.5, 0.4), (0.52, 0.86)],
        "turns": [(x0, y), (0.5, y), (x0, y)],
        "a step back": [(x0, y), (0.5, y), (0.5 + 0.03 * (1 if is_leftward else -1), y), (x1, y)],
    }
    for _ in range(studio.whole(1, 2)):
        plot = studio.one_of(["against", *plots])
        actors.append(studio.walk(plots[plot], start_s=start_s, plot=plot))
        start_s += studio.between(6.0, 10.0)
    rule = {
        "zone": "corridor",
        "labels": LABELS,
        "min_distance_frac": studio.between(0.07, 0.12),
        "learn_s": 600.0,
        "min_objects": enough,
        "min_agreement": 0.7,
        "grace_s": 3.0,
        "hysteresis_frac": 0.01,
    }
    return Script(actors, rule, {"corridor": zone})


def _through(studio: Studio, is_leftward: bool, start_s: float, number: int) -> Actor:
    y = 0.57 + 0.03 * (number % 4)
    stops = [(0.1, y), (0.9, y + studio.between(-0.02, 0.02))]
    if is_leftward:
        stops.reverse()
    speed = studio.between(1.4, 2.0)
    return studio.walk(stops, start_s=start_s, speed_mps=speed, plot="stream")


SCRIPTS: Final[dict[str, Callable[[Studio], Script]]] = {
    "zone_enter": zone_enter,
    "line_cross": line_cross,
    "counting": counting,
    "loiter": loiter,
    "crowd": crowd,
    "pedestrian_on_road": pedestrian_on_road,
    "counter_flow": counter_flow,
}
