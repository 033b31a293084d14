"""A track log through the rules again: the same as live, and what another configuration changes."""

import json
from dataclasses import replace

import pytest

from agent.core.clock import RealClock, SimClock
from agent.core.config import Kinded
from agent.core.model import Box, Detection
from agent.vision import lines, replay, tracklog
from agent.vision.analytics import crowd, loiter
from agent.vision.config import DetectorConfig
from agent.vision.pipeline import Pipeline
from agent.vision.replay import Replay
from agent.vision.tracklog import Break, Damage, Seen, Session
from tests.vision.cameras import Script, Walker, plaza
from tests.vision.support import PLAZA, frames
from tests.vision.test_analysis import Ear, Paced, run

pytestmark = pytest.mark.video

RULES = (
    *plaza().rules,
    Kinded("loiter", loiter.Config(name="stays", zone="crossing", dwell_s=3.0)),
    Kinded("crowd", crowd.Config(name="many", zone="crossing", min_count=3, on_s=1.0)),
)
CAMERA = plaza(rules=RULES)


def body(event) -> dict:
    """All that is told of an event but its id and its picture."""
    told = lines.event_body(event)
    return {key: told[key] for key in told if key not in ("event_id", "snapshot")}


def again(files, camera=CAMERA) -> list:
    return list(Replay(camera, None, RealClock()).events(tracklog.read(files)))


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """The analysis process over the plaza with the real detector: its events and its log."""
    folder = tmp_path_factory.mktemp("state")
    ear = Ear(folder, until=lambda said: said.get("state") == "ended")
    run(ear, lambda _stream: Paced(speed=8.0), cameras=[CAMERA], limit_s=60.0)
    events = [lines.from_line(json.dumps(said)) for said in ear.of("event")]
    return events, tracklog.paths(folder / tracklog.FOLDER, "plaza")


def test_a_replay_tells_what_live_told(live):
    events, files = live
    assert len({event.kind for event in events}) == 4
    told = [body(event) for event in again(files)]
    assert told == [body(event) for event in events]
    assert [(event.start_utc_ns, event.end_utc_ns, event.path) for event in again(files)] == [
        (event.start_utc_ns, event.end_utc_ns, event.path) for event in events
    ]


def test_a_replay_is_the_same_every_time(live):
    _, files = live
    assert [body(event) for event in again(files)] == [body(event) for event in again(files)]


def stays(dwell_s: float):
    rule = loiter.Config(name="stays", zone="crossing", dwell_s=dwell_s)
    return plaza(rules=(plaza().rules[0], Kinded("loiter", rule)))


def test_another_dwell_moves_an_event_and_a_longer_one_drops_it():
    notes = Notes([Session("plaza", "script@000000000000")])
    eye = Script(lambda _seconds: [Detection("person", 0.8, Box(0.45, 0.4, 0.1, 0.2))])
    pipeline = Pipeline(plaza(), eye, 0.4, RealClock(), None, notes)
    for frame in frames(PLAZA):
        pipeline.step(frame)

    def told(dwell_s: float) -> list:
        return list(Replay(stays(dwell_s), None, RealClock()).events(notes))

    found = replay.compare(told(3.0), told(4.0))
    ((one, other),) = found.changed
    assert one.rule == other.rule == "stays"
    assert other.start_utc_ns - one.start_utc_ns == pytest.approx(1e9, abs=1e6)
    assert (found.both, found.only_first, found.only_second) == (1, [], [])
    found = replay.compare(told(3.0), told(600.0))
    assert [event.rule for event in found.only_first] == ["stays"]
    found = replay.compare(told(600.0), told(3.0))
    assert [event.rule for event in found.only_second] == ["stays"]


def test_the_same_configuration_has_no_difference(live):
    _, files = live
    found = replay.compare(again(files), again(files))
    assert (found.changed, found.only_first, found.only_second) == ([], [], [])
    assert found.both > 4


def test_no_days_write_no_log_and_leave_nothing(tmp_path):
    ear = Ear(tmp_path, until=lambda said: said.get("state") == "ended")
    detector = DetectorConfig(model="int8", tracklog_days=0)
    run(ear, lambda _stream: Paced(speed=20.0), cameras=[CAMERA], detector=detector, limit_s=60.0)
    assert ear.of("event")
    assert not (tmp_path / tracklog.FOLDER).exists()


def test_a_slow_rule_is_asked_all_the_same():
    """Live a rule over its budget is asked less often; a replay has time."""

    class Slow(SimClock):
        def mono_ns(self) -> int:
            self.advance(0.5)
            return super().mono_ns()

    notes = Notes([Session("plaza", "walker@000000000000")])
    pipeline = Pipeline(plaza(), Walker(), 0.4, RealClock(), None, notes)
    events = [event for frame in frames(PLAZA) for event in pipeline.step(frame).events]
    events += pipeline.break_off(replay.END_OF_LOG)
    told = list(Replay(plaza(), None, Slow()).events(notes))
    assert [body(event) for event in told] == [body(event) for event in events]


class Notes(list):
    """A witness that keeps items in memory."""

    def saw(self, view, utc_ns) -> None:
        self.append(Seen(view, utc_ns))

    def broke(self, reason) -> None:
        self.append(Break(reason))


def test_breaks_and_restarts_close_what_was_open():
    notes = Notes([Session("plaza", "walker@000000000000")])
    pipeline = Pipeline(plaza(), Walker(), 0.4, RealClock(), None, notes)
    events = []
    for frame in frames(PLAZA):
        if frame.t_us < 4_000_000:
            events += pipeline.step(frame).events
    told = list(Replay(plaza(), None, RealClock()).events(notes))
    assert [body(event) for event in told[: len(events)]] == [body(event) for event in events]
    assert [event.reason for event in told[len(events) :]] == [replay.END_OF_LOG]
    halves = [*notes, *notes]
    told = list(Replay(plaza(), None, RealClock()).events(halves))
    assert [event.reason for event in told if event.reason].count(replay.RESUMED) == 1
    broken = [*notes, Break("source lost")]
    told = list(Replay(plaza(), None, RealClock()).events(broken))
    assert told[-1].reason == "source lost"


def test_midnight_changes_nothing():
    notes = Notes([Session("plaza", "walker@000000000000")])
    pipeline = Pipeline(plaza(), Walker(), 0.4, RealClock(), None, notes)
    for frame in frames(PLAZA):
        pipeline.step(frame)
    whole = [body(event) for event in Replay(plaza(), None, RealClock()).events(notes)]
    for place in (1, 20, 60):
        parted = [*notes[:place], replace(notes[0], goes_on=True), *notes[place:]]
        again = Replay(plaza(), None, RealClock())
        assert [body(event) for event in again.events(parted)] == whole


def test_the_extent_counts_only_what_was_looked_at(tmp_path):
    def at(second):
        return Seen(tracklog.View(second * 1_000_000, 0, ()), second * 10**9)

    again = Replay(plaza(), None, RealClock())
    items = [at(0), at(1), at(2), at(4000), at(4001), Damage(tmp_path, 3), at(4002), at(4003)]
    list(again.events(items))
    assert again.extent.seen_us == 4_000_000
    assert again.extent.views == 7
    assert len(again.extent.damaged) == 1
    assert (again.extent.first_utc_ns, again.extent.last_utc_ns) == (0, 4003 * 10**9)
