"""The truth of paths made by hand, whose events anybody can work out."""

import math
from dataclasses import replace

import numpy as np
import pytest

from firmware_sim.scenes import Case, Sampled, truth_in

SQUARE = {"yard": ((0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6))}
MARGIN = 0.01


def case(rule, paths, *, seconds=30.0, hidden=(), ground=None, zones=None):
    """A case of paths t -> (x, y); `hidden` has (object, from, to)."""
    t_s = np.arange(0.0, seconds + 0.01, 0.02)
    feet = np.array([[path(t) for t in t_s.tolist()] for path in paths], dtype=float)
    is_seen = np.ones(feet.shape[:2], dtype=bool)
    for row, begin, end in hidden:
        is_seen[row, (t_s >= begin) & (t_s < end)] = False
    metres = feet * 100.0 if ground is None else ground(t_s)
    seen = Sampled(t_s, ("person",) * len(paths), feet, is_seen, metres)
    rule = {"labels": ("person", "vehicle"), "hysteresis_frac": MARGIN, "grace_s": 3.0, **rule}
    lines = {"line": ((0.5, 0.8), (0.5, 0.2))}
    return Case(seen, rule, zones or SQUARE, lines)


def along(x_per_s, y=0.5, begin=0.2):
    return lambda t: (begin + x_per_s * t, y)


def stand(x, y):
    return lambda _t: (x, y)


def stops(*rows):
    """Straight from stop to stop: (t, x, y)."""
    times, xs, ys = zip(*rows, strict=True)
    return lambda t: (float(np.interp(t, times, xs)), float(np.interp(t, times, ys)))


def only(found):
    (item,) = found
    return item


# Zones.

ENTER = {"zone": "yard", "min_inside_s": 0.0}


def test_an_entry_is_hysteresis_within_the_border_and_leaving_as_far_beyond() -> None:
    found = only(truth_in("zone_enter", case(ENTER, [along(0.05)])))
    assert found.start_s == pytest.approx((0.41 - 0.2) / 0.05, abs=0.021)
    assert found.end_s == pytest.approx((0.61 - 0.2) / 0.05, abs=0.021)
    assert found.told_from_s == pytest.approx(found.start_s, abs=0.021)
    assert not found.is_doubtful


def test_one_who_must_stay_is_told_later_but_has_entered_then() -> None:
    found = only(truth_in("zone_enter", case({**ENTER, "min_inside_s": 2.0}, [along(0.05)])))
    assert found.start_s == pytest.approx(4.2, abs=0.021)
    assert found.told_from_s == pytest.approx(6.2, abs=0.021)


def test_passing_outside_and_too_fast_are_no_entries() -> None:
    assert truth_in("zone_enter", case(ENTER, [along(0.05, y=0.63)])) == []
    quick = case({**ENTER, "min_inside_s": 4.0}, [along(0.1)])
    assert truth_in("zone_enter", quick) == []


def test_grazing_the_edge_is_a_coin_flip() -> None:
    for y in (0.593, 0.588, 0.583):
        assert only(truth_in("zone_enter", case(ENTER, [along(0.05, y=y)]))).is_doubtful, y
    assert truth_in("zone_enter", case(ENTER, [along(0.05, y=0.603)])) == []


def test_who_appears_inside_has_entered_then() -> None:
    found = only(truth_in("zone_enter", case(ENTER, [stand(0.5, 0.5)], hidden=[(0, 0.0, 7.0)])))
    assert found.start_s == pytest.approx(7.0, abs=0.021)


def test_hidden_shortly_is_one_visit_and_long_is_two() -> None:
    short = case(ENTER, [stand(0.5, 0.5)], hidden=[(0, 10.0, 11.5)])
    assert len(truth_in("zone_enter", short)) == 1
    long = case(ENTER, [stand(0.5, 0.5)], hidden=[(0, 10.0, 15.0)])
    first, second = truth_in("zone_enter", long)
    assert first.end_s == pytest.approx(10.0, abs=0.021)
    assert second.start_s == pytest.approx(15.0, abs=0.021)


LOITER = {"zone": "yard", "dwell_s": 10.0}


def test_loitering_begins_after_the_dwell() -> None:
    path = stops((0, 0.2, 0.5), (4, 0.4, 0.5), (5, 0.5, 0.5), (20, 0.5, 0.5), (21, 0.8, 0.5))
    found = only(truth_in("loiter", case(LOITER, [path])))
    assert found.start_s == pytest.approx(14.1, abs=0.021)
    assert found.measured["dwell_s"] == pytest.approx(20.367 - 4.1, abs=0.05)


def test_seen_outside_starts_the_time_anew() -> None:
    rows = [(0, 0.5, 0.5), (7, 0.5, 0.5), (7.5, 0.7, 0.5), (8, 0.5, 0.5), (15, 0.5, 0.5)]
    path = stops(*rows, (15.5, 0.8, 0.5))
    assert truth_in("loiter", case(LOITER, [path])) == []


def test_an_absence_within_grace_counts_and_a_longer_one_does_not() -> None:
    inside = case(LOITER, [stand(0.5, 0.5)], seconds=15.0, hidden=[(0, 5.0, 7.0)])
    assert only(truth_in("loiter", inside)).start_s == pytest.approx(10.0, abs=0.021)
    beyond = case(LOITER, [stand(0.5, 0.5)], seconds=15.0, hidden=[(0, 5.0, 9.0)])
    assert truth_in("loiter", beyond) == []
    at_the_limit = case(LOITER, [stand(0.5, 0.5)], seconds=15.0, hidden=[(0, 9.0, 11.0)])
    found = only(truth_in("loiter", at_the_limit))
    assert (found.start_s, found.told_from_s) == pytest.approx((10.0, 11.0), abs=0.021)


def test_a_dwell_near_the_limit_is_a_coin_flip() -> None:
    for stays_s, count in ((8.5, 0), (9.5, 1), (10.5, 1)):
        scene = case(LOITER, [stand(0.5, 0.5)], hidden=[(0, stays_s, 99.0)])
        found = truth_in("loiter", scene)
        assert len(found) == count
        assert all(item.is_doubtful for item in found)


def test_the_crossing_is_no_road() -> None:
    road = {"road": ((0.0, 0.4), (1.0, 0.4), (1.0, 0.6), (0.0, 0.6))}
    zones = {**road, "crossing": ((0.4, 0.3), (0.6, 0.3), (0.6, 0.7), (0.4, 0.7))}
    rule = {"zone": "road", "exclude": ("crossing",), "on_s": 1.0}
    beside = stops((0, 0.2, 0.2), (10, 0.2, 0.8))
    on_it = stops((0, 0.5, 0.2), (10, 0.5, 0.8))
    leaves_it = stops((0, 0.5, 0.2), (5, 0.5, 0.5), (10, 0.9, 0.5))
    found = truth_in("pedestrian_on_road", case(rule, [beside, on_it, leaves_it], zones=zones))
    assert [item.objects for item in found] == [(0,), (2,)]
    assert found[0].start_s == pytest.approx(0.21 / 0.06 + 1.0, abs=0.05)
    assert found[1].start_s == pytest.approx(5 + 0.11 / 0.08 + 1.0, abs=0.05)


CROWD = {"zone": "yard", "min_count": 3, "on_s": 3.0, "off_s": 4.0}


def test_a_crowd_holds_through_a_short_dip() -> None:
    still = [stand(0.45, 0.5), stand(0.5, 0.5)]
    third = stops((0, 0.9, 0.5), (5, 0.9, 0.5), (5.1, 0.5, 0.5), (15, 0.5, 0.5))
    found = only(truth_in("crowd", case(CROWD, [*still, third], hidden=[(2, 20.0, 99.0)])))
    assert found.start_s == pytest.approx(5.1 + 3.0, abs=0.05)
    assert found.end_s == pytest.approx(20.0, abs=0.05)
    assert found.measured["count_max"] == 3
    dip = stops((0, 0.5, 0.5), (10, 0.5, 0.5), (10.1, 0.9, 0.5), (12, 0.9, 0.5), (12.1, 0.5, 0.5))
    assert only(truth_in("crowd", case(CROWD, [*still, dip]))).end_s == pytest.approx(30, abs=0.1)
    assert truth_in("crowd", case(CROWD, still)) == []


def test_a_lane_is_misused_by_the_way_and_not_by_the_time() -> None:
    rule = {"zone": "yard", "min_distance_frac": 0.1}
    found = only(truth_in("lane_misuse", case(rule, [along(0.04), stand(0.5, 0.5)])))
    assert found.objects == (0,)
    assert found.start_s == pytest.approx((0.51 - 0.2) / 0.04, abs=0.5)
    assert truth_in("lane_misuse", case({**rule, "min_distance_frac": 0.3}, [along(0.04)])) == []


# Lines.

CROSS = {"line": "line", "direction": "both", "max_unseen_s": 4.0}


def test_a_crossing_is_where_the_path_meets_the_line() -> None:
    found = only(truth_in("line_cross", case(CROSS, [along(0.03)])))
    assert found.start_s == pytest.approx(10.0, abs=0.01)
    assert found.told_from_s == pytest.approx(10.0 + MARGIN / 0.03, abs=0.03)
    assert found.measured == pytest.approx({"direction": 1.0, "x": 0.5, "y": 0.5}, abs=0.01)


def test_left_of_the_line_is_a() -> None:
    from_right = case(CROSS, [along(-0.03, begin=0.8)])
    assert only(truth_in("line_cross", from_right)).measured["direction"] == -1.0
    down = replace(case(CROSS, [along(0.03)]), lines={"line": ((0.5, 0.2), (0.5, 0.8))})
    assert only(truth_in("line_cross", down)).measured["direction"] == -1.0
    assert truth_in("line_cross", case({**CROSS, "direction": "b_to_a"}, [along(0.03)])) == []


def test_touching_standing_at_and_going_round_are_no_crossings() -> None:
    touch = stops((0, 0.2, 0.5), (10, 0.479, 0.5), (20, 0.2, 0.5))
    at_it = stand(0.475, 0.5)
    beside = along(0.03, y=0.83)
    assert truth_in("line_cross", case(CROSS, [touch, at_it, beside])) == []


def test_over_and_back_are_two() -> None:
    path = stops((0, 0.3, 0.5), (10, 0.6, 0.5), (20, 0.3, 0.5))
    found = truth_in("line_cross", case(CROSS, [path]))
    assert [item.measured["direction"] for item in found] == [1.0, -1.0]


def test_a_path_unseen_for_too_long_is_not_believed() -> None:
    short = case(CROSS, [along(0.03)], hidden=[(0, 9.0, 11.0)])
    assert only(truth_in("line_cross", short)).start_s == pytest.approx(10.0, abs=0.05)
    assert truth_in("line_cross", case(CROSS, [along(0.03)], hidden=[(0, 7.0, 13.0)])) == []


def test_counts_stand_in_the_interval_in_which_they_were_known() -> None:
    paths = [along(0.1), along(0.1, y=0.4), along(-0.04, begin=0.9), along(0.012)]
    rule = {"line": "line", "max_unseen_s": 4.0, "report_s": 10.0}
    found = truth_in("counting", case(rule, paths, seconds=30.5))
    assert [item.start_s for item in found] == [10.0, 20.0, 30.0]
    assert [(item.measured["a_to_b"], item.measured["b_to_a"]) for item in found] == [
        (2.0, 0.0),
        (0.0, 1.0),
        (1.0, 0.0),
    ]
    assert [item.is_doubtful for item in found] == [True, True, False]  # one near the report


# Ways.

LANE = {"zone": "yard", "line": "line", "min_distance_frac": 0.1}


def test_back_against_the_lane_counts_from_the_farthest_point() -> None:
    rows = [(0, 0.5, 0.7), (10, 0.5, 0.48), (12, 0.5, 0.48), (20, 0.5, 0.64)]
    found = only(truth_in("wrong_way", case(LANE, [stops(*rows)])))
    assert found.start_s == pytest.approx(12 + 0.1 / 0.02, abs=0.05)


def test_rolling_back_a_little_and_crossing_are_not_against_it() -> None:
    roll = stops((0, 0.5, 0.7), (10, 0.5, 0.45), (14, 0.5, 0.51), (20, 0.5, 0.3))
    across = stops((0, 0.3, 0.42), (10, 0.7, 0.56))
    assert truth_in("wrong_way", case(LANE, [roll, across])) == []
    against = stops((0, 0.5, 0.3), (10, 0.5, 0.7))
    assert only(truth_in("wrong_way", case(LANE, [against]))).start_s == pytest.approx(
        (0.41 + 0.1 - 0.3) / 0.04, abs=0.05
    )


def test_the_stream_is_learned_before_one_can_be_against_it() -> None:
    rule = {"zone": "yard", "min_distance_frac": 0.1, "min_objects": 3, "min_agreement": 0.7}
    rule["learn_s"] = 600.0
    stream = [along(0.1, y=y) for y in (0.45, 0.5, 0.55)]
    late = stops((10, 0.8, 0.5), (20, 0.2, 0.5))
    early = stops((0, 0.8, 0.5), (3, 0.2, 0.5), (30, 0.2, 0.5))
    found = only(truth_in("counter_flow", case(rule, [*stream, late])))
    assert found.objects == (3,)
    assert found.start_s == pytest.approx(10 + (0.8 - 0.49) / 0.06, abs=0.05)
    assert truth_in("counter_flow", case({**rule, "min_objects": 4}, [*stream, late])) == []
    assert truth_in("counter_flow", case(rule, [*stream, early])) == []
    mixed = case({**rule, "min_objects": 4}, [*stream, early, late])  # one of four disagrees
    assert truth_in("counter_flow", mixed) == []


# Standing.

STOPPED = {"zone": "yard", "stop_s": 8.0, "still_frac": 0.02, "queue_from": 3}


def arrives(at_s, x, y=0.5, leaves_s=99.0):
    return stops((0, x - 0.3, y), (at_s - 3.0, x - 0.3, y), (at_s, x, y), (leaves_s, x, y))


def test_standing_counts_from_still_frac_before_the_spot() -> None:
    found = only(truth_in("stopped_vehicle", case(STOPPED, [arrives(6.0, 0.5)])))
    assert found.start_s == pytest.approx(6.0 - 0.2 + 8.0, abs=0.15)
    assert truth_in("stopped_vehicle", case(STOPPED, [arrives(6.0, 0.8)])) == []


def test_a_queue_is_no_event_until_it_has_gone() -> None:
    paths = [arrives(4.0, 0.56), arrives(6.0, 0.5), arrives(8.0, 0.44)]
    assert truth_in("stopped_vehicle", case(STOPPED, paths)) == []
    gone = [
        paths[0],
        paths[1],
        stops((0, 0.2, 0.5), (8, 0.44, 0.5), (16, 0.44, 0.5), (17, 0.44, 0.9)),
    ]
    found = truth_in("stopped_vehicle", case(STOPPED, gone))
    assert sorted(item.objects for item in found) == [(0,), (1,)]
    assert found[0].start_s == pytest.approx(16.0 + 8.0, abs=0.2)


def test_parking_does_not_mind_a_queue() -> None:
    rule = {"zone": "yard", "limit_s": 8.0, "still_frac": 0.02}
    paths = [arrives(4.0, 0.56), arrives(6.0, 0.5), arrives(8.0, 0.44)]
    assert len(truth_in("parking", case(rule, paths))) == 3
    moves = stops((0, 0.5, 0.5), (12, 0.5, 0.5), (13, 0.58, 0.5), (30, 0.58, 0.5))
    first, second = truth_in("parking", case(rule, [moves]))
    assert first.end_s == pytest.approx(12.5, abs=0.15)
    assert second.start_s == pytest.approx(12.75 + 8.0, abs=0.15)


# Ground.


def driving(mps):
    return lambda t_s: np.stack((np.zeros_like(t_s), mps * t_s), axis=-1)[None]


SPEED = {"limit_kmh": 50.0, "window_s": 2.0, "min_length_m": 5.0}


def test_speed_is_over_a_window_and_a_length() -> None:
    found = only(truth_in("speed", case(SPEED, [stand(0.5, 0.5)], ground=driving(15.0))))
    assert found.start_s == pytest.approx(5.0 / 15.0, abs=0.05)
    assert found.measured["speed_kmh"] == pytest.approx(54.0, abs=0.01)
    assert truth_in("speed", case(SPEED, [stand(0.5, 0.5)], ground=driving(13.0))) == []


def test_a_speed_at_the_limit_is_a_coin_flip() -> None:
    (found,) = truth_in("speed", case(SPEED, [stand(0.5, 0.5)], ground=driving(14.0)))
    assert found.is_doubtful


def test_speed_ends_below_nine_tenths() -> None:
    def ground(t_s):
        gone = np.where(t_s < 10, 15.0 * t_s, 150.0 + 5.0 * (t_s - 10))
        return np.stack((gone, np.zeros_like(t_s)), axis=-1)[None]

    found = only(truth_in("speed", case(SPEED, [stand(0.5, 0.5)], ground=ground)))
    assert 10.3 < found.end_s < 11.5


def test_slow_traffic_needs_enough_of_it() -> None:
    rule = {"zone": "yard", "limit_kmh": 15.0, "min_count": 3, "on_s": 5.0, "off_s": 4.0}
    rule["window_s"] = 3.0
    paths = [stand(0.45, 0.5), stand(0.5, 0.5), stand(0.55, 0.5)]

    def ground(t_s):
        gone = np.where(t_s < 20, 2.0 * t_s, 40.0 + 10.0 * (t_s - 20))
        return np.repeat(np.stack((gone, np.zeros_like(t_s)), axis=-1)[None], 3, axis=0)

    found = only(truth_in("congestion", case(rule, paths, ground=ground)))
    assert found.start_s == pytest.approx(5.5, abs=0.05)
    assert 20.3 < found.end_s < 22.0
    assert found.measured["speed_kmh"] == pytest.approx(7.2, abs=0.1)
    few = {**rule, "min_count": 4}
    assert truth_in("congestion", case(few, paths, ground=ground)) == []
    assert math.isclose(found.measured["count"], 3.0)
