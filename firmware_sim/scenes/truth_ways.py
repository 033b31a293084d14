"""What truly happened to directions: over lines, against a lane, against the stream."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from firmware_sim.scenes.pinhole import Floats
from firmware_sim.scenes.shapes import Visit, depth, sides, visits
from firmware_sim.scenes.stage import Ints
from firmware_sim.scenes.told import MARGIN_S, Case, Truth

_ON_IT_FRAC: Final = 1e-6  # nearer to a line than this is on neither side


@dataclass(frozen=True, slots=True)
class Crossing:
    """One object passing a segment."""

    row: int
    t_s: float
    told_s: float  # seen far enough on the other side
    direction: int  # 1 from a, left of the line, to b
    x: float
    y: float


def line_cross(case: Case) -> list[Truth]:
    """Every crossing in the direction asked for."""
    wanted = {"a_to_b": (1,), "b_to_a": (-1,), "both": (1, -1)}[str(case.rule["direction"])]
    return [
        Truth(
            "line_cross",
            (item.row,),
            item.t_s,
            item.t_s,
            item.told_s,
            {"direction": float(item.direction), "x": item.x, "y": item.y},
        )
        for item in crossings(case)
        if item.direction in wanted
    ]


def counting(case: Case) -> list[Truth]:
    """Totals of every whole interval; doubtful when a crossing is, or is near the report."""
    every_s = case.number("report_s")
    made = crossings(case)
    easy, hard = crossings(case.leaning(-1)), crossings(case.leaning(1))
    unsure = [item.told_s for item in easy if not any(_is_same(item, one) for one in hard)]
    found = []
    for number in range(1, int(float(case.seen.t_s[-1]) / every_s) + 1):
        begin, end = (number - 1) * every_s, number * every_s
        inside = [item for item in made if begin < item.told_s <= end]
        near = [item.told_s for item in easy if _is_near(item.told_s, begin, end)]
        is_doubtful = bool(near) or any(begin < told <= end for told in unsure)
        totals = {
            "a_to_b": float(sum(item.direction == 1 for item in inside)),
            "b_to_a": float(sum(item.direction == -1 for item in inside)),
        }
        rows = tuple(sorted({item.row for item in inside}))
        found.append(Truth("counting", rows, end, end, end, totals, is_doubtful))
    return found


def _is_near(t_s: float, begin: float, end: float) -> bool:
    return min(abs(t_s - begin), abs(t_s - end)) < MARGIN_S


def _is_same(first: Crossing, second: Crossing) -> bool:
    return (
        first.row == second.row
        and first.direction == second.direction
        and abs(first.t_s - second.t_s) < 2 * MARGIN_S
    )


def crossings(case: Case) -> list[Crossing]:
    """Give all crossings of the rule's line, in the order in which they can be told."""
    found: list[Crossing] = []
    for row in case.actors:
        found += _crossings_of(case, row)
    return sorted(found, key=lambda item: (item.told_s, item.row))


def _crossings_of(case: Case, row: int) -> list[Crossing]:
    looks = np.flatnonzero(case.seen.is_seen[row])
    if not len(looks):
        return []
    hysteresis = max(_ON_IT_FRAC, case.number("hysteresis_frac") + case.lean.frac)
    found = []
    gaps = np.diff(case.seen.t_s[looks]) > case.lean.allowed(case.number("max_unseen_s"))
    for piece in np.split(looks, np.flatnonzero(gaps) + 1):
        feet = case.seen.feet[row, piece]
        right, along = sides(feet, case.line)
        (x0, y0), (x1, y1) = case.line
        spare = case.lean.frac / float(np.hypot(x1 - x0, y1 - y0))
        clear = np.flatnonzero(np.abs(right) >= hysteresis)
        turns = np.flatnonzero(np.diff(np.sign(right[clear])) != 0)
        for turn in turns.tolist():
            before, after = int(clear[turn]), int(clear[turn + 1])
            at = before + _last_pass(right[before : after + 1])
            share = -right[at] / (right[at + 1] - right[at])
            place = along[at] + share * (along[at + 1] - along[at])
            if spare <= place <= 1 - spare:
                spot = feet[at] + share * (feet[at + 1] - feet[at])
                begin, end = case.seen.t_s[piece[at]], case.seen.t_s[piece[at + 1]]
                told = float(case.seen.t_s[piece[after]])
                way = 1 if right[after] > 0 else -1
                moment = float(begin + share * (end - begin))
                found.append(Crossing(row, moment, told, way, float(spot[0]), float(spot[1])))
    return found


def _last_pass(right: Floats) -> int:
    """Give the sample before the last change of side."""
    return int(np.flatnonzero((right[:-1] >= 0) != (right[1:] >= 0))[-1])


def wrong_way(case: Case) -> list[Truth]:
    """Back along the drawn direction by `min_distance_frac`."""
    (x0, y0), (x1, y1) = case.line
    way = np.array((x1 - x0, y1 - y0)) / np.hypot(x1 - x0, y1 - y0)
    found = []
    for row, visit in _stays(case):
        looks = _looks(case, row, visit)
        found += _backward(case, "wrong_way", row, looks, visit, [(0.0, way)])
    return found


def counter_flow(case: Case) -> list[Truth]:
    """Back along the mean direction of those who crossed before, once they are enough."""
    stays = _stays(case)
    crossed = []
    for row, visit in stays:
        move = case.seen.feet[row, visit.looks[1]] - case.seen.feet[row, visit.looks[0]]
        length = float(np.hypot(*move))
        if visit.has_left and length > 0:
            crossed.append((visit.last_s, row, move / length))
    crossed.sort(key=lambda item: item[:2])
    found = []
    for row, visit in stays:
        ways = _streams(case, [item for item in crossed if item[1] != row])
        looks = _looks(case, row, visit)
        found += _backward(case, "counter_flow", row, looks, visit, ways)
    return found


def _streams(
    case: Case, crossed: list[tuple[float, int, Floats]]
) -> list[tuple[float, Floats | None]]:
    """Give the allowed direction from each moment on at which it changes."""
    learn_s = case.number("learn_s")
    moments = sorted({t for end, _, _ in crossed for t in (end, end + learn_s)})
    found: list[tuple[float, Floats | None]] = [(-np.inf, None)]
    for moment in moments:
        units = [unit for end, _, unit in crossed if moment - learn_s < end <= moment]
        way = None
        if len(units) >= case.number("min_objects"):
            mean = np.mean(units, axis=0)
            agreement = float(np.hypot(*mean))
            if agreement >= case.number("min_agreement") + 0.1 * case.lean.side:
                way = mean / agreement
        found.append((moment, way))
    return found


def _backward(
    case: Case,
    kind: str,
    row: int,
    looks: Ints,
    visit: Visit,
    ways: Sequence[tuple[float, Floats | None]],
) -> list[Truth]:
    needed = case.number("min_distance_frac")
    t_s, feet = case.seen.t_s[looks], case.seen.feet[row, looks]
    current = np.searchsorted([moment for moment, _ in ways], t_s, side="right") - 1
    found: list[Truth] = []
    first = 0
    while first < len(looks):
        hit = _first_back(case, feet[first:], current[first:], [way for _, way in ways])
        if hit is None:
            break
        way = ways[int(current[first + hit])][1]
        start = first + hit
        gone = feet @ np.asarray(way)
        lowest = np.minimum.accumulate(gone[start:])
        returned = np.flatnonzero(gone[start:] - lowest >= needed / 2)
        end = start + int(returned[0]) if len(returned) else len(looks) - 1
        way_back = {
            "distance_frac": float(gone[first:start].max(initial=gone[start]) - gone[start])
        }
        start_s = float(t_s[start])
        end_s = float(t_s[end]) if len(returned) else visit.last_s
        found.append(Truth(kind, (row,), start_s, end_s, start_s, way_back))
        if not len(returned):
            break
        first = end
    return found


def _first_back(
    case: Case,
    feet: Floats,
    current: Ints,
    ways: Sequence[Floats | None],
) -> int | None:
    """Give the first sample at which it has gone back far enough along the way then allowed."""
    needed = case.number("min_distance_frac") + case.lean.frac
    firsts = []
    for number in sorted(set(current.tolist())):
        way = ways[number]
        if way is None:
            continue
        along, across = feet @ way, feet @ np.array((-way[1], way[0]))
        farthest = np.maximum.accumulate(along)
        place = np.maximum.accumulate(np.where(along >= farthest, np.arange(len(along)), 0))
        back = farthest - along
        aside = np.abs(across - across[place])
        holds = (back >= needed) & (back >= aside * case.lean.angle) & (current == number)
        firsts += np.flatnonzero(holds)[:1].tolist()
    return min(firsts) if firsts else None


def _stays(case: Case) -> list[tuple[int, Visit]]:
    grace_s = case.lean.allowed(case.number("grace_s"))
    found = []
    for row in case.actors:
        deep = depth(case.seen.feet[row], case.zone) - case.lean.frac
        seen = case.seen.is_seen[row]
        stays = visits(case.seen.t_s, deep, seen, case.number("hysteresis_frac"), grace_s)
        found += [(row, visit) for visit in stays]
    return found


def _looks(case: Case, row: int, visit: Visit) -> Ints:
    first, last = visit.looks
    return first + np.flatnonzero(case.seen.is_seen[row, first : last + 1])


TELLERS: Final[dict[str, Callable[[Case], list[Truth]]]] = {
    "line_cross": line_cross,
    "counting": counting,
    "wrong_way": wrong_way,
    "counter_flow": counter_flow,
}
