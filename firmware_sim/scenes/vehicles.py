"""Scripts with vehicles: against the lane, standing, parking, wrong lane, too fast, too slow."""

from collections.abc import Callable
from typing import Final

from firmware_sim.scenes.flow import Driver, follow
from firmware_sim.scenes.paths import Aside, Pace
from firmware_sim.scenes.people import Script
from firmware_sim.scenes.stage import Actor
from firmware_sim.scenes.studio import Road, Studio, drawn, road_before, start_m

LABELS: Final = ("vehicle",)

_ROADS: Final = 6  # to choose from: nobody measures speed where cars are seen for a second
_FIRST_M: Final = 12.0  # before the picture's part of a lane: where drives begin


def _cruise(along_m: float, start_s: float, speed: float) -> Pace:
    """Give a drive at one speed that is at `along_m` at `start_s`."""
    return Pace.of([(600.0, 0.0)], start_s=start_s, speed_mps=speed, begin_m=start_m(along_m))


def _stop_at(along_m: float, start_s: float, speed: float, stays_s: float) -> Pace:
    """Give a drive that brakes, stands at `along_m` from `start_s` on, and goes on."""
    brake = 2.0
    braking_s = speed / brake
    begin_m = start_m(along_m) - speed * braking_s / 2
    phases = [(braking_s, -brake), (stays_s, 0.0), (speed / 1.8, 1.8)]
    return Pace.of(phases, start_s=start_s - braking_s, speed_mps=speed, begin_m=begin_m)


def wrong_way(studio: Studio) -> Script:
    """Traffic, and one who comes the other way, backs up, rolls back a little, turns or crosses."""
    road = road_before(studio)
    shown = road.shown(0.0)
    middle, half = (shown[0] + shown[1]) / 2, (shown[1] - shown[0]) / 2
    zone = road.band((shown[0], shown[1]), (-3.0, 3.5))
    line = drawn([road.foot(middle - half / 2, 0.0), road.foot(middle + half / 2, 0.0)])
    actors, start_s = [], 0.0
    for _ in range(studio.whole(1, 3)):
        speed = studio.between(5.0, 11.0)
        pace = _cruise(shown[0] - _FIRST_M, start_s, speed)
        actors.append(road.car(pace, studio.between(-1.4, -0.8), plot="with"))
        start_s += (2 * half + 2 * _FIRST_M) / speed + studio.between(0.5, 2.0)
    plot = studio.one_of(["against", "against", "backs up", "rolls back", "stops", "with"])
    speed = studio.between(4.0, 10.0)
    if plot == "against":
        pace = Pace.of(
            [(600, 0.0)], start_s=start_s, speed_mps=speed, begin_m=start_m(-shown[1] - _FIRST_M)
        )
        actors.append(road.car(pace, studio.between(-2.1, -1.5), is_back=True, plot=plot))
    elif plot == "with":
        actors.append(road.car(_cruise(shown[0] - _FIRST_M, start_s, speed), plot=plot))
    else:
        back_m = {"backs up": 0.8 * half, "rolls back": 2.0, "stops": 0.0}[plot]
        pace = _back(middle, start_s + 4.0, speed, back_m)
        actors.append(road.car(pace, plot=plot))
    rule = {
        "zone": "lane",
        "line": "lane",
        "labels": LABELS,
        "min_distance_frac": studio.between(0.07, 0.12),
        "grace_s": 3.0,
        "hysteresis_frac": 0.01,
    }
    return Script(actors, rule, {"lane": zone}, {"lane": (line[0], line[1])})


def _back(along_m: float, stands_s: float, speed: float, back_m: float) -> Pace:
    """Give a drive that stands at `along_m`, goes back so far, stands again and goes on."""
    brake = 2.0
    phases = [(speed / brake, -brake), (2.0, 0.0)]
    if back_m:
        gain = 0.8
        turn_s = (back_m / gain) ** 0.5
        phases += [(turn_s, -gain), (turn_s, gain), (2.0, 0.0)]
    phases.append((speed / 1.8, 1.8))
    begin_m = start_m(along_m) - speed**2 / brake / 2
    return Pace.of(phases, start_s=stands_s - speed / brake, speed_mps=speed, begin_m=begin_m)


def stopped_vehicle(studio: Studio) -> Script:
    """One stands too long or not quite, is hidden for a while; or a queue stands, and goes."""
    road = road_before(studio)
    shown = road.shown(0.0)
    zone = road.band(shown, (-2.5, 6.0))
    stop_s = studio.between(6.0, 10.0)
    plot = studio.one_of(["stands", "stands", "too short", "hidden", "queue", "queue leaves one"])
    where = shown[0] + (shown[1] - shown[0]) * studio.between(0.35, 0.65)
    if plot.startswith("queue"):
        actors = _queue(studio, road, where, stop_s, is_one_left=plot == "queue leaves one")
    else:
        stays_s = stop_s + studio.between(2.0, 8.0)
        if plot == "too short":
            stays_s = stop_s * studio.between(0.3, 0.6)
        pace = _stop_at(where, 6.0, studio.between(6.0, 10.0), stays_s)
        hidden = ((8.0, 8.0 + studio.between(2.0, 4.0)),) if plot == "hidden" else ()
        actors = [road.car(pace, hidden=hidden, plot=plot)]
    actors += _passing(studio, road, shown, 3.5)
    rule = {
        "zone": "road",
        "labels": LABELS,
        "stop_s": stop_s,
        "still_frac": 0.02,
        "queue_from": 3,
        "grace_s": 10.0,
        "hysteresis_frac": 0.01,
    }
    return Script(actors, rule, {"road": zone}, seconds=45.0)


def _passing(studio: Studio, road: Road, shown: tuple[float, float], left_m: float) -> list[Actor]:
    """Give traffic on the lane beside, the other way."""
    actors, start_s = [], studio.between(0.0, 6.0)
    for _ in range(studio.whole(0, 3)):
        speed = studio.between(6.0, 12.0)
        pace = _cruise(-shown[1] - _FIRST_M, start_s, speed)
        actors.append(road.car(pace, left_m, is_back=True, plot="passing"))
        start_s += studio.between(3.0, 8.0)
    return actors


def _queue(
    studio: Studio, road: Road, where: float, stop_s: float, *, is_one_left: bool
) -> list[Actor]:
    speed, stays_s = studio.between(6.0, 9.0), stop_s + studio.between(3.0, 8.0)
    leader = _stop_at(where, 6.0, speed, stays_s)
    behind = start_m(where) - speed * 6.0
    drivers = [
        Driver(behind - 12.0 * number, speed, speed * 1.1)
        for number in range(1, studio.whole(2, 3) + 1)
    ]
    paces = follow(leader, drivers, 60.0)
    if is_one_left:  # the last one breaks down in the queue
        paces[-1] = _frozen(paces[-1], 6.0 + stays_s)
    return [road.car(pace, plot="queue") for pace in [leader, *paces]]


def _frozen(pace: Pace, from_s: float) -> Pace:
    """Give the same drive, standing for ever from a moment on at which it stands."""
    kept = pace.t_s <= from_s
    speed, gain = pace.speed_mps[kept].copy(), pace.gain_mps2[kept].copy()
    speed[-1] = gain[-1] = 0.0
    return Pace(pace.t_s[kept], pace.gone_m[kept], speed, gain)


def parking(studio: Studio) -> Script:
    """Cars park too long or not, hidden by others at times; another takes the place."""
    road = road_before(studio)
    shown = road.shown(-2.5)
    zone = road.band(shown, (-5.0, -0.8))
    limit_s = studio.between(6.0, 10.0)
    plot = studio.one_of(["parks", "parks", "too short", "hidden", "two in turn", "passes"])
    where = shown[0] + (shown[1] - shown[0]) * studio.between(0.35, 0.65)
    stays_s = limit_s + studio.between(2.0, 8.0)
    speed = studio.between(5.0, 8.0)
    if plot in ("too short", "two in turn"):
        stays_s = limit_s * studio.between(0.3, 0.6)
    hidden = ((8.0, 8.0 + studio.between(2.0, 5.0)),) if plot == "hidden" else ()
    actors = [road.car(_stop_at(where, 6.0, speed, stays_s), -2.5, hidden=hidden, plot=plot)]
    if plot == "passes":
        actors = [road.car(_cruise(shown[0] - _FIRST_M, 0.0, speed), -2.5, plot=plot)]
    if plot == "two in turn":
        again_s = 6.0 + stays_s + studio.between(6.0, 8.0)
        actors.append(road.car(_stop_at(where, again_s, speed, stays_s), -2.5, plot=plot))
    actors += _passing(studio, road, shown, 3.0)
    rule = {
        "zone": "kerb",
        "labels": LABELS,
        "limit_s": limit_s,
        "still_frac": 0.02,
        "grace_s": 60.0,
        "hysteresis_frac": 0.01,
    }
    return Script(actors, rule, {"kerb": zone}, seconds=45.0)


def lane_misuse(studio: Studio) -> Script:
    """Cars keep their lane, or weave into the bus lane for up to three fifths of the way."""
    road = road_before(studio)
    shown = road.shown(0.0)
    length = shown[1] - shown[0]
    zone = road.band(shown, (1.75, 5.25))
    actors, start_s = [], 0.5
    for _ in range(studio.whole(1, 3)):
        speed = studio.between(5.0, 11.0)
        share = studio.between(0.0, 0.6) if studio.is_so(0.75) else 0.0
        enters_s = start_s + (_FIRST_M + studio.between(0.0, 0.3) * length) / speed
        leaves_s = enters_s + share * length / speed
        aside = Aside()
        if share:
            change_s = 12.0 / speed
            changed_s = enters_s + change_s / 2
            back_s = max(changed_s + 0.1, leaves_s - change_s / 2)
            knots = (enters_s - change_s / 2, changed_s, back_s, leaves_s + change_s / 2 + 0.2)
            aside = Aside(knots, (0.0, 3.5, 3.5, 0.0))
        pace = _cruise(shown[0] - _FIRST_M, start_s, speed)
        actors.append(road.car(pace, aside=aside, plot=f"weaves {share:.2f}"))
        start_s += (length + 2 * _FIRST_M) / speed * studio.between(0.6, 1.0) + 1.0
    rule = {
        "zone": "bus-lane",
        "labels": LABELS,
        "min_distance_frac": studio.between(0.1, 0.2),
        "grace_s": 3.0,
        "hysteresis_frac": 0.01,
    }
    return Script(actors, rule, {"bus-lane": zone})


def speed(studio: Studio) -> Script:
    """Cars a little and much below and above the limit, some of them braking."""
    road = max((road_before(studio) for _ in range(_ROADS)), key=_shown_m)
    shown = road.shown(0.0, 50.0)
    limit = studio.between(30.0, 60.0)
    actors, start_s = [], 0.5
    for _ in range(studio.whole(1, 3)):
        factor = studio.between(0.7, 0.95) if studio.is_so(0.5) else studio.between(1.05, 1.5)
        speed_mps = limit * factor / 3.6
        pace = _cruise(shown[0] - _FIRST_M, start_s, speed_mps)
        if studio.is_so(0.2):
            until_s = (_FIRST_M + (shown[1] - shown[0]) / 2) / speed_mps
            phases = [(until_s, 0.0), (0.5 * speed_mps / 2.0, -2.0)]
            begin = start_m(shown[0] - _FIRST_M)
            pace = Pace.of(phases, start_s=start_s, speed_mps=speed_mps, begin_m=begin)
        is_back = studio.is_so(0.3)
        if is_back:
            begin = start_m(-shown[1] - _FIRST_M)
            pace = Pace.of([(600.0, 0.0)], start_s=start_s, speed_mps=speed_mps, begin_m=begin)
        plot = f"{factor:.2f} of the limit"
        actors.append(road.car(pace, 3.5 if is_back else 0.0, is_back=is_back, plot=plot))
        start_s += studio.between(3.0, 6.0)
    zones = {"road": road.band(shown, (-2.5, 6.0))} if studio.is_so(0.5) else {}
    rule = {
        "labels": LABELS,
        "limit_kmh": limit,
        "window_s": 2.0,
        "min_length_m": 5.0,
        "grace_s": 2.0,
    }
    if zones:
        rule["zone"] = "road"
    return Script(actors, rule, zones)


def _shown_m(road: Road) -> float:
    first, last = road.shown(0.0, 50.0)
    return last - first


def congestion(studio: Studio) -> Script:
    """A platoon behind a slow leader, free traffic, or too few slow ones."""
    road = road_before(studio, studio.between(-35, 35))
    shown = road.shown(0.0)
    zone = road.band(shown, (-2.5, 2.5))
    plot = studio.one_of(["jam", "jam", "jam", "jam", "free", "slow, not jammed", "few"])
    quick = studio.between(8.0, 10.0)
    crawl = {"free": 0.9 * quick, "slow, not jammed": studio.between(5.0, 6.5)}
    slow = crawl.get(plot, studio.between(0.1, 0.2))
    braking_s, crawl_s = (quick - slow) / 2.0, studio.between(16.0, 26.0)
    where = shown[0] + studio.between(0.78, 0.84) * (shown[1] - shown[0])
    begin = start_m(where) - 5.0 * quick - braking_s * (quick + slow) / 2
    phases = [(5.0, 0.0), (braking_s, -2.0), (crawl_s, 0.0), ((quick - slow) / 1.8, 1.8)]
    leader = Pace.of(phases, speed_mps=quick, begin_m=begin)
    count = 1 if plot == "few" else studio.whole(4, 6)
    drivers = [Driver(begin - 18.0 * number, quick, quick * 1.1) for number in range(1, count + 1)]
    paces = [leader, *follow(leader, drivers, 70.0)]
    rule = {
        "zone": "road",
        "labels": LABELS,
        "limit_kmh": 15.0,
        "min_count": 3,
        "on_s": studio.between(4.0, 7.0),
        "off_s": studio.between(4.0, 6.0),
        "window_s": 3.0,
    }
    actors = [road.car(pace, plot=plot) for pace in paces]
    return Script(actors, rule, {"road": zone}, seconds=60.0)


SCRIPTS: Final[dict[str, Callable[[Studio], Script]]] = {
    "wrong_way": wrong_way,
    "stopped_vehicle": stopped_vehicle,
    "parking": parking,
    "lane_misuse": lane_misuse,
    "speed": speed,
    "congestion": congestion,
}
