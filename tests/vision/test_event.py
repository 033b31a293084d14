"""The event host: ids once, merges, splits, cool-down, ends, paths."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.clock import SimClock
from agent.core.model import EventState, Phase, Signal, View
from agent.vision.analytics import line_cross, zone_enter
from agent.vision.config import EventConfig
from agent.vision.event import Binding, EventHost
from agent.vision.lines import MAX_PATH_POINTS
from tests.vision.tracks import track

BASE_NS = 1_700_000_000_000_000_000
ZONE = zone_enter.Config(name="in", zone="gate", pre_s=2.0, post_s=3.0)
LINE = line_cross.Config(name="over", line="kerb", cooldown_s=10.0)


def us(seconds: float) -> int:
    return round(seconds * 1_000_000)


def utc_of(t_us: int) -> int:
    return BASE_NS + t_us * 1000


def host(**options) -> EventHost:
    bindings = {"in": Binding("zone_enter", ZONE), "over": Binding("line_cross", LINE)}
    return EventHost("west", bindings, EventConfig(**options), "ssd@1", SimClock())


def begin(t: float, key: str = "1", score: float = 0.6, **measured: float) -> Signal:
    return Signal(Phase.BEGIN, key, us(t), "person", score, (int(key),), measured)


def end(t: float, key: str = "1", reason: str = "left", **measured: float) -> Signal:
    return Signal(Phase.END, key, us(t), track_ids=(int(key),), measured=measured, reason=reason)


def standing(
    t: float,
    *,
    track_id: int = 1,
    x: float = 0.5,
    seen: float | None = None,
    since: float = 0.0,
    **more,
):
    """A track that stands since `since` and was last seen at `seen`."""
    last = t if seen is None else seen
    points = [(us(at / 5), x, 0.5) for at in range(int(since * 5), int(last * 5) + 1)]
    return track(points, track_id=track_id, t_us=us(t), **more)


class Run:
    """Steps a host and keeps what it said."""

    def __init__(self, one: EventHost) -> None:
        self.host = one
        self.events = []
        self.best = []

    def step(self, t: float, *signals: Signal, tracks=(), rule: str = "in"):
        moves = self.host.step(
            View(us(t), 0, tuple(tracks)), [(rule, signal) for signal in signals], utc_of
        )
        self.events += moves.events
        self.best.append(moves.best_now)
        return moves.events


def test_an_event_opens_and_closes_with_one_id_and_true_times():
    run = Run(host())
    (opened,) = run.step(2.0, begin(1.5, x=0.4), tracks=[standing(2.0)])
    assert (opened.state, opened.end_utc_ns, opened.reason) == (EventState.OPEN, None, "")
    assert opened.start_utc_ns == BASE_NS + 1_500_000_000
    assert (opened.camera, opened.kind, opened.rule) == ("west", "zone_enter", "in")
    assert (opened.pre_s, opened.post_s, opened.model) == (2.0, 3.0, "ssd@1")
    (closed,) = run.step(6.0, end(5.5, dwell_s=4.0), tracks=[standing(6.0)])
    assert closed.event_id == opened.event_id
    assert closed.state is EventState.CLOSED
    assert closed.end_utc_ns == BASE_NS + 5_500_000_000
    assert closed.measured == {"x": 0.4, "dwell_s": 4.0}
    assert closed.reason == "left"
    assert run.host.open_count == 0


def test_a_crossing_opens_and_closes_in_one_step_and_has_its_picture():
    run = Run(host())
    said = run.step(2.0, begin(1.9), end(1.9, reason="a_to_b"), tracks=[standing(2.0)], rule="over")
    assert [event.state for event in said] == [EventState.OPEN, EventState.CLOSED]
    assert said[0].event_id == said[1].event_id
    assert run.best == [(said[0].event_id,)]
    assert len(said[1].path) > 5


def test_the_path_holds_the_foot_from_before_the_start_in_wall_time():
    run = Run(host())
    run.step(4.0, begin(3.0), tracks=[standing(4.0, x=0.25)])
    (closed,) = run.step(5.0, end(4.8), tracks=[standing(5.0, x=0.25)])
    times = [utc_ms for utc_ms, _, _ in closed.path]
    assert times[0] == BASE_NS // 10**6 + 1_000
    assert times[-1] == BASE_NS // 10**6 + 5_000
    assert times == sorted(set(times))
    assert {(x, y) for _, x, y in closed.path} == {(0.25, 0.5)}


def test_the_path_is_bounded_and_keeps_both_ends():
    run = Run(host(max_s=3600))
    run.step(0.2, begin(0.0), tracks=[standing(0.2)])
    for step in range(1, 140):
        run.step(step * 10.0, tracks=[standing(step * 10.0)])
    (closed,) = run.step(1391.0, end(1390.0), tracks=[standing(1391.0)])
    assert MAX_PATH_POINTS / 2 <= len(closed.path) <= MAX_PATH_POINTS
    assert closed.path[0][0] == BASE_NS // 10**6
    assert closed.path[-1][0] == BASE_NS // 10**6 + 1_391_000


def test_one_open_event_a_key():
    run = Run(host())
    run.step(1.0, begin(1.0, "1"), begin(1.0, "2"), tracks=[])
    assert run.host.open_count == 2
    assert len({event.event_id for event in run.events}) == 2
    (closed,) = run.step(2.0, end(2.0, "2"))
    assert closed.track_ids == (2,)
    assert run.host.open_count == 1


def test_a_lost_object_that_comes_back_under_another_id_is_one_event():
    run = Run(host(merge_s=2.0))
    run.step(1.0, begin(0.0), tracks=[standing(1.0)])
    run.step(2.0, tracks=[standing(2.0, seen=1.0)])
    said = run.step(
        2.5,
        begin(2.2, "7"),
        tracks=[standing(2.5, seen=1.0), standing(2.5, track_id=7, x=0.55, since=1.2)],
    )
    assert said == ()
    assert run.step(3.0, end(1.0, "1", "lost", dwell_s=1.0)) == ()
    (closed,) = run.step(9.0, end(8.0, "7", dwell_s=5.8), tracks=[standing(9.0, track_id=7)])
    assert closed.event_id == run.events[0].event_id
    assert closed.track_ids == (1, 7)
    assert closed.measured["dwell_s"] == pytest.approx(6.8)


@pytest.mark.parametrize(
    ("x", "at", "is_seen", "since"),
    [
        (0.9, 2.5, False, 1.2),
        (0.55, 4.5, False, 1.2),
        (0.55, 2.6, True, 1.2),
        (0.55, 2.5, False, 0),
    ],
    ids=["too far", "too late", "the first is still there", "stood beside it before"],
)
def test_somebody_else_is_another_event(x, at, is_seen, since):
    run = Run(host(merge_s=2.0))
    run.step(1.0, begin(0.0), tracks=[standing(1.0)])
    first = standing(at) if is_seen else standing(at, seen=1.0)
    other = standing(at, track_id=7, x=x, since=since)
    said = run.step(at, begin(at, "7"), tracks=[first, other])
    assert [event.track_ids for event in said] == [(7,)]


def test_what_stays_lost_closes_at_its_last_sight():
    run = Run(host(merge_s=3.0))
    run.step(1.0, begin(0.0), tracks=[standing(1.0)])
    assert run.step(2.0, end(1.0, reason="lost", dwell_s=1.0)) == ()
    assert run.step(4.0) == ()
    (closed,) = run.step(4.1)
    assert (closed.reason, closed.end_utc_ns) == ("lost", BASE_NS + 1_000_000_000)


def test_a_long_event_goes_on_as_a_new_one():
    run = Run(host(max_s=60))
    run.step(0.0, begin(0.0))
    assert run.step(59.0) == ()
    closed, opened = run.step(60.0, tracks=[standing(60.0)])
    assert (closed.state, closed.reason) == (EventState.CLOSED, "max duration")
    assert opened.event_id != closed.event_id
    assert opened.start_utc_ns == closed.end_utc_ns == BASE_NS + 60 * 10**9
    (last,) = run.step(70.0, end(69.0, dwell_s=69.0), tracks=[standing(70.0)])
    assert (last.event_id, last.reason) == (opened.event_id, "left")


def test_a_lasting_event_is_never_split_and_asks_for_its_clip_once():
    bindings = {"in": Binding("parking", ZONE, is_lasting=True)}
    run = Run(EventHost("west", bindings, EventConfig(max_s=60), "ssd@1", SimClock()))
    (opened,) = run.step(0.0, begin(0.0))
    (due,) = run.step(60.0, tracks=[standing(60.0)])
    assert (due.event_id, due.state) == (opened.event_id, EventState.OPEN)
    assert due.clip_until_utc_ns == BASE_NS + 60 * 10**9
    assert run.step(500.0) == ()
    (closed,) = run.step(600.0, end(600.0))
    assert (closed.event_id, closed.has_clip) == (opened.event_id, False)
    (again,) = [event for event in run.step(700.0, begin(700.0)) if event.state is EventState.OPEN]
    (short,) = run.step(710.0, end(710.0))
    assert (short.event_id, short.has_clip) == (again.event_id, True)


def test_a_report_is_an_event_without_length_and_clip():
    run = Run(host())
    report = Signal(Phase.MEASURE, "door", us(10), measured={"a_to_b": 3.0})
    (event,) = run.step(10.2, report)
    assert (event.state, event.has_clip, event.reason) == (EventState.CLOSED, False, "report")
    assert event.start_utc_ns == event.end_utc_ns == BASE_NS + 10 * 10**9
    assert run.host.open_count == 0


def test_the_events_of_one_rule_can_be_ended_alone():
    run = Run(host())
    run.step(1.0, begin(1.0, "1"), begin(1.0, "2"))
    assert run.host.close_rule("over", "schedule") == ()
    assert [event.reason for event in run.host.close_rule("in", "schedule")] == ["schedule"] * 2
    assert run.host.open_count == 0


def test_another_name_of_the_object_joins_its_event():
    run = Run(host())
    run.step(1.0, begin(1.0))
    run.step(2.0, Signal(Phase.UPDATE, "1", us(2), track_ids=(9,)))
    (closed,) = run.step(3.0, end(3.0))
    assert closed.track_ids == (1, 9)


def test_cooldown_silences_the_same_object_only():
    run = Run(host())
    run.step(1.0, begin(1.0), end(1.0), rule="over")
    assert run.step(5.0, begin(5.0), end(5.0), rule="over") == ()
    assert len(run.step(6.0, begin(6.0, "2"), end(6.0, "2"), rule="over")) == 2
    assert len(run.step(12.0, begin(12.0), end(12.0), rule="over")) == 2


def test_without_a_cooldown_a_begin_that_is_told_late_is_no_less_an_event():
    run = Run(host())
    run.step(1.0, begin(1.0), tracks=[standing(1.0)])
    run.step(9.0, end(9.0))
    (again,) = run.step(9.5, begin(8.5))
    assert again.state is EventState.OPEN


def test_close_all_ends_everything_with_its_reason():
    run = Run(host())
    run.step(1.0, begin(0.5, "1"), begin(0.6, "2"))
    closed = run.host.close_all("agent stopped")
    assert [event.reason for event in closed] == ["agent stopped"] * 2
    assert all(event.end_utc_ns == BASE_NS + 10**9 for event in closed)
    assert run.host.close_all("agent stopped") == ()


def test_the_end_of_nothing_is_nothing():
    run = Run(host())
    assert run.step(1.0, end(1.0), Signal(Phase.UPDATE, "1", us(1.0))) == ()


def test_an_update_adds_what_was_measured():
    run = Run(host())
    run.step(1.0, begin(1.0))
    run.step(2.0, Signal(Phase.UPDATE, "1", us(2.0), measured={"people": 3.0}))
    (closed,) = run.step(3.0, end(3.0))
    assert closed.measured == {"people": 3.0}


def test_the_score_is_the_best_of_the_track_even_before_the_event():
    run = Run(host())
    run.step(1.0, tracks=[standing(1.0, score=0.9)])
    run.step(2.0, begin(2.0, score=0.3), tracks=[standing(2.0, score=0.3)])
    (closed,) = run.step(3.0, end(3.0), tracks=[standing(3.0, score=0.5)])
    assert closed.score == 0.9


def test_the_best_picture_is_the_one_with_the_best_sight():
    run = Run(host())
    run.step(1.0, begin(1.0), tracks=[standing(1.0, score=0.5)])
    run.step(2.0, tracks=[standing(2.0, score=0.505)])
    run.step(3.0, tracks=[standing(3.0, score=0.8)])
    run.step(4.0, tracks=[standing(4.0, seen=3.0, score=0.95)])
    (event_id,) = {event.event_id for event in run.events}
    assert run.best == [(event_id,), (), (event_id,), ()]


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["begin", "end", "lost", "both", "none", "stop"]),
            st.sampled_from(["1", "2", "3"]),
            st.floats(0.1, 40.0),
        ),
        max_size=40,
    )
)
@settings(max_examples=80, deadline=None)
def test_every_opened_event_is_closed_once_and_never_before_it_began(steps):
    """Whatever the rules say: ids are unique, open comes before closed, and nothing is left."""
    run, t = Run(host(max_s=30)), 0.0
    for what, key, passed in steps:
        t += passed
        if what == "stop":
            run.events += run.host.close_all("stop")
            continue
        signals = {
            "begin": [begin(t, key)],
            "end": [end(t, key)],
            "lost": [end(t - 0.05, key, "lost")],
            "both": [begin(t, key), end(t, key)],
        }.get(what, [])
        run.step(t, *signals)
    run.events += run.host.close_all("stop")
    by_id = {}
    for event in run.events:
        by_id.setdefault(event.event_id, []).append(event)
    for said in by_id.values():
        assert [event.state for event in said] == [EventState.OPEN, EventState.CLOSED]
        assert said[1].end_utc_ns >= said[0].start_utc_ns
        assert said[1].reason
    assert run.host.open_count == 0
    ids = list(by_id)
    assert all(a != b for a, b in itertools.combinations(ids, 2))
