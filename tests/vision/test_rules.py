"""The rules of a camera at work: armed, kept apart, told as blind, asked less when costly."""

from dataclasses import MISSING, dataclass, fields, replace
from types import SimpleNamespace

import pytest

from agent import app
from agent.core.clock import NS_PER_MS
from agent.core.model import Phase, Signal, View
from agent.vision import analytics
from agent.vision.rules import NO_DETECTOR, Rules
from tests.vision.tracks import Actor, scene, stand

ROOT = __import__("pathlib").Path(__file__).parents[2]
UTC_NS = 1_795_000_000_000_000_000


class Stopwatch:
    """Time that passes only when somebody says so."""

    def __init__(self):
        self.now_ns = 0

    def mono_ns(self):
        return self.now_ns


def camera(*rules: str):
    listed = ", ".join(f"{{{rule}}}" for rule in rules)
    overrides = [f"cameras.0.rules=[{listed}]"]
    return app.load_config(ROOT / "configs" / "camera.toml", overrides, check_files=False).cameras[
        0
    ]


ENTER = 'kind = "zone_enter", name = "enter", zone = "crossing"'
LOITER = 'kind = "loiter", name = "loiter", zone = "crossing", dwell_s = 5'


def bench(*rules, clock=None, has_detector=True):
    chosen = camera(*rules)
    return Rules(chosen, chosen.places, clock or Stopwatch(), has_detector=has_detector)


def broken(rules, name, error):
    """Let one of the rules raise, as a mistake in its file would."""
    item = next(item for item in rules._running if item.name == name)

    def step(view, state, rule, places):
        raise error

    item.rule = SimpleNamespace(SPEC=item.rule.SPEC, initial=item.rule.initial, step=step)
    return item


def test_a_rule_that_raises_is_told_and_the_others_go_on():
    rules = bench(ENTER, LOITER)
    item = broken(rules, "enter", ZeroDivisionError("division by zero"))
    said = [rules.step(view, UTC_NS) for view in scene([Actor(1, stand(0.5, 0.5))], 12)]
    faults = [fault for one in said for fault in one.faults]
    assert [fault.rule for fault in faults] == ["enter", "enter"]  # at once, and after ten seconds
    assert faults[0].reason == "ZeroDivisionError: division by zero"
    assert faults[0].views[-1].t_us == 0
    assert faults[1].views[-1].t_us == 10_000_000
    told = [name for one in said for name, signal in one.signals if signal.phase is Phase.BEGIN]
    assert told == ["loiter"]
    assert item.pause_s == 40


def test_it_is_begun_anew_with_a_fresh_state():
    rules = bench(ENTER)
    item = broken(rules, "enter", ValueError("once"))
    mended = analytics.rule("zone_enter")
    views = scene([Actor(1, stand(0.5, 0.5))], 14)
    rules.step(views[0], UTC_NS)
    item.rule = mended
    said = [rules.step(view, UTC_NS) for view in views[1:]]
    begun = [signal.t_us for one in said for _, signal in one.signals]
    assert begun == [0]  # the track's own history tells when it entered


def test_a_disarmed_rule_says_nothing_and_its_events_are_over():
    night = 'schedule = {timezone = "UTC", weekly = ["mon-sun 20:00-21:00"]}'
    rules = bench(f"{ENTER}, {night}")
    day_ns = 86_400 * 10**9
    at_eight = UTC_NS // day_ns * day_ns + 20 * 3600 * 10**9
    views = scene([Actor(1, stand(0.5, 0.5))], 20)
    before = [rules.step(view, at_eight - 30 * 10**9) for view in views[:10]]
    assert all(one.signals == () and one.disarmed == () for one in before)
    armed = [rules.step(view, at_eight) for view in views[10:20]]
    (begin,) = [signal for one in armed for _, signal in one.signals]
    assert (begin.phase, begin.t_us) == (Phase.BEGIN, 2_000_000)
    over = rules.step(views[20], at_eight + 3600 * 10**9)
    assert over.disarmed == ("enter",)
    again = [rules.step(view, at_eight) for view in views[21:30]]
    assert [signal.t_us for one in again for _, signal in one.signals] == [4_200_000]


def test_without_a_detector_the_rules_over_tracks_are_blind():
    rules = bench(ENTER, LOITER, has_detector=False)
    for t_us in range(0, 10_000_001, 500_000):
        rules.step(View(t_us, 0, ()), UTC_NS)
    blind = rules.blindness()
    assert {name: item.reason for name, item in blind.items()} == {
        "enter": NO_DETECTOR,
        "loiter": NO_DETECTOR,
    }
    assert blind["enter"].total_s == 10.0


def test_a_gap_and_an_obstacle_are_blind_time():
    rules = bench(ENTER)
    rules.step(View(0, 0, ()), UTC_NS)
    rules.step(View(7_000_000, 7_000_000, ()), UTC_NS)
    assert rules.blindness()["enter"].total_s == 7.0
    assert rules.blindness()["enter"].reason == ""


def test_a_rule_that_watches_the_camera_blinds_those_that_need_what_it_misses():
    rules = bench(ENTER, 'kind = "motion", name = "watch"')
    watch = rules._running[1]
    phases = {10: Phase.BEGIN, 20: Phase.END}

    def step(view, state, rule, places):
        phase = phases.get(view.t_us // 200_000)
        return state, () if phase is None else (Signal(phase, "dark", view.t_us),)

    spec = replace(watch.rule.SPEC, blinds={"dark": frozenset({"tracks"})})
    watch.rule = SimpleNamespace(SPEC=spec, initial=watch.rule.initial, step=step)
    seen = []
    for n in range(30):
        rules.step(View(n * 200_000, 0, ()), UTC_NS)
        seen.append(rules.blindness()["enter"].reason)
    assert seen == [""] * 11 + ["dark"] * 10 + [""] * 9
    assert rules.blindness()["enter"].total_s == 2.0
    assert rules.blindness()["watch"].reason == ""


@dataclass(frozen=True)
class Counted:
    """State of a rule that counts how often it was asked."""

    asked: tuple[int, ...] = ()


def test_a_costly_rule_is_asked_less_often_and_loses_no_gap():
    clock = Stopwatch()
    rules = bench(ENTER, clock=clock)
    item = rules._running[0]
    gaps = []

    def step(view, state, rule, places):
        clock.now_ns += 20 * NS_PER_MS
        gaps.append(view.gap_us)
        signal = Signal(Phase.UPDATE, key="1", t_us=view.t_us)
        return Counted((*state.asked, view.t_us)), (signal,)

    item.rule = SimpleNamespace(SPEC=item.rule.SPEC, initial=Counted, step=step)
    item.state = Counted()
    for n in range(1000):
        rules.step(View(n * 100_000, 6_000_000 if n == 995 else 0, ()), UTC_NS)
    asked = len(item.state.asked)
    assert asked < 400
    late = [one for one in item.state.asked if one >= 80_000_000]
    assert 15 <= len(late) <= 30  # every tenth look or so
    for n in range(1000, 1020):
        rules.step(View(n * 100_000, 0, ()), UTC_NS)
    assert 6_000_000 in gaps
    assert rules.costs_ms()["enter"] > 10


def test_a_schedule_is_no_reason_to_forget():
    rules = bench(LOITER)
    views = scene([Actor(1, stand(0.5, 0.5))], 8)
    for view in views:
        rules.step(replace(view, armed_since_us=None), UTC_NS)  # what the host fills in counts
    assert rules._running[0].state.stays[0].is_told


@pytest.mark.parametrize("kind", sorted(analytics.kinds()))
def test_every_rule_takes_an_empty_view_and_says_the_same_twice(kind):
    module = analytics.rule(kind)
    assert module.SPEC.kind == kind
    assert repr(module.initial()) == repr(module.initial())


@pytest.mark.parametrize("kind", sorted(analytics.kinds()))
def test_every_level_of_sensitivity_is_more_willing_and_of_the_right_type(kind):
    shape = analytics.rule(kind).Config
    needed = {"zone": "crossing", "line": "kerb", "limit_kmh": 50.0}
    wanted = {item.name for item in fields(shape) if item.default is MISSING}
    rules = [
        shape(name="x", sensitivity=level, **{key: needed[key] for key in wanted & set(needed)})
        for level in range(1, 6)
    ]
    for key, levels in shape.LEVELS.items():
        assert [getattr(rule, key) for rule in rules] == list(levels)
        assert list(levels) == sorted(levels, reverse=True)
        assert all(level > 0 for level in levels)
