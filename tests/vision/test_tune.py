"""Alarms a day at each sensitivity, counted by hand beside it."""

from dataclasses import replace

import pytest

from agent.core.clock import RealClock
from agent.core.config import Kinded
from agent.core.model import Box, Sight, Track, TrackPoint, View
from agent.vision import tune
from agent.vision.analytics import line_cross, loiter
from agent.vision.tracklog import Seen, Session
from tests.vision.cameras import plaza

STEP_US = 500_000


def standing(track_id: int, from_s: float, seconds: float) -> dict[int, Track]:
    """Someone in the crossing: what is seen of them at each instant."""
    found, past = {}, []
    for step in range(round(seconds * 2) + 1):
        t_us = round(from_s * 1e6) + step * STEP_US
        past.append(TrackPoint(t_us, Box(0.45, 0.4, 0.1, 0.2), Sight.DETECTED))
        found[t_us] = Track(track_id, "person", 0.8, past[-1].box, step / 2, 0.0, tuple(past))
    return found


def items(hours: float, stays: list[dict[int, Track]]):
    yield Session("plaza", "eye@1")
    for step in range(round(hours * 7200) + 1):
        t_us = step * STEP_US
        tracks = tuple(stay[t_us] for stay in stays if t_us in stay)
        yield Seen(View(t_us, 0, tracks), t_us * 1000)


LOITER = loiter.Config(name="stays", zone="crossing", sensitivity=2, grace_s=2.0)
CROSS = line_cross.Config(name="over", line="kerb")
CAMERA = plaza(rules=(Kinded("loiter", LOITER), Kinded("line_cross", CROSS)))


def test_the_table_is_what_one_counts_by_hand():
    """Stays of 15, 25, 45 and 70 seconds in two hours; dwell is 120, 60, 30, 20, 10 seconds."""
    lengths = {100: 15, 1000: 25, 2000: 45, 3000: 70}
    stays = [standing(n, at, seconds) for n, (at, seconds) in enumerate(lengths.items(), 1)]
    table = tune.tune(CAMERA, None, items(2.0, stays), RealClock())
    loitering, crossing = table.rows
    assert loitering.events == {"present": 1, "1": 0, "2": 1, "3": 2, "4": 3, "5": 4}
    assert loitering.keys == "dwell_s 60"
    assert crossing.events == {"present": 0}
    assert table.extent.hours == pytest.approx(2.0)
    assert table.a_day(loitering, "5") == pytest.approx(48.0)
    assert table.a_day(crossing, "3") is None


def test_a_key_that_is_set_stands_at_present_only():
    camera = replace(CAMERA, rules=(Kinded("loiter", replace(LOITER, dwell_s=40.0)),))
    stays = [standing(1, 100, 45)]
    (row,) = tune.tune(camera, None, items(0.5, stays), RealClock()).rows
    assert row.events == {"present": 1, "1": 0, "2": 0, "3": 1, "4": 1, "5": 1}
    assert row.keys == "dwell_s 40"


def test_a_log_without_views_gives_no_rate():
    table = tune.tune(CAMERA, None, [Session("plaza", "eye@1")], RealClock())
    assert table.a_day(table.rows[0], "present") is None
