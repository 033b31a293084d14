"""Faults of a camera: one event a mode, as rendered over real footage and as plain figures."""

import itertools
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest

from agent.core.clock import SimClock
from agent.core.config import Kinded
from agent.core.model import EventState, Phase, Picture, View
from agent.vision import analytics, lines
from agent.vision.analytics import camera_health as health
from agent.vision.analytics._contract import GROUND, Places
from agent.vision.config import MotionConfig
from agent.vision.pipeline import Pipeline
from agent.vision.rules import SOURCE_LOST, Blindness
from benchmarks import health as bench
from firmware_sim import picture_faults as faults
from tests.vision.support import BIKES, PLAZA, frames

NOWHERE = Places({}, {})
GOOD = Picture(
    luma_mean=110.0,
    luma_sd=40.0,
    sharpness=100.0,
    change=1.5,
    change_max=90.0,
    shift_frac=0.0,
    clock_offset_s=0.1,
)


def play(pictures, rule=None, fps: float = 2.0, armed=lambda _t_s: True):
    rule = rule or health.Config(name="health", on_s=10.0)
    state, said = health.initial(), []
    for index, picture in enumerate(pictures):
        t_us = round(index * 1e6 / fps)
        armed_us = 0 if armed(t_us / 1e6) else None
        view = View(t_us, 0, (), armed_since_us=armed_us, picture=picture)
        state, signals = health.step(view, state, rule, NOWHERE)
        said += signals
    return said


def told(said):
    return [(signal.phase, signal.key, signal.t_us / 1e6) for signal in said]


def bad(**figures):
    return replace(GOOD, **figures)


FAULTS = {
    "dark": bad(luma_mean=16.0, luma_sd=1.0),
    "bright": bad(luma_mean=250.0, luma_sd=3.0),
    "blurred": bad(sharpness=20.0),
    "moved": bad(shift_frac=0.02),
    "clock": bad(clock_offset_s=-3600.0),
    "degraded": bad(corrupt_share=0.2),
}


@pytest.mark.parametrize("fps", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("mode", sorted(FAULTS))
def test_a_fault_is_told_after_its_time_and_over_when_it_is(mode, fps):
    count = int(fps)
    said = play([GOOD] * 60 * count + [FAULTS[mode]] * 30 * count + [GOOD] * 20 * count, fps=fps)
    assert told(said) == [(Phase.BEGIN, mode, 70.0), (Phase.END, mode, 90.0)]
    assert {signal.label for signal in said} == {mode}


@pytest.mark.parametrize("mode", sorted(FAULTS))
def test_a_shorter_one_is_not(mode):
    assert play([GOOD] * 120 + [FAULTS[mode]] * 18 + [GOOD] * 40) == []


@pytest.mark.parametrize(
    ("mode", "border"),
    [
        ("moved", bad(shift_frac=0.009)),
        ("blurred", bad(sharpness=40.0)),
        ("clock", bad(clock_offset_s=4.5)),
        ("degraded", bad(corrupt_share=0.045)),
        ("dark", bad(luma_mean=16.0, luma_sd=16.0, sharpness=16.0, shift_frac=None)),
    ],
)
def test_what_trembles_about_a_limit_neither_begins_nor_ends_an_event(mode, border):
    assert play([GOOD] * 120 + [border] * 100) == []
    said = play([GOOD] * 120 + [FAULTS[mode]] * 40 + [border] * 100)
    assert told(said) == [(Phase.BEGIN, mode, 70.0)]


def test_value_and_baseline_are_told():
    (begin,) = play([GOOD] * 120 + [FAULTS["dark"]] * 40)
    assert begin.measured == {"value": 1.0, "baseline": 40.0}


def test_a_frozen_picture_needs_half_a_minute_without_the_smallest_change():
    frozen = bad(change=0.0, change_max=0.0)
    said = play([GOOD] * 60 + [frozen] * 100 + [GOOD] * 40)
    assert told(said) == [(Phase.BEGIN, "frozen", 59.5), (Phase.END, "frozen", 80.0)]
    assert play([GOOD] * 60 + [frozen] * 58 + [GOOD] * 40) == []
    assert play([GOOD] * 60 + [bad(change=0.01, change_max=3.0)] * 100) == []


def test_key_frames_of_a_frozen_picture_are_no_life_and_a_written_clock_is():
    coded_anew = bad(change=0.9, change_max=22.0)
    refined = bad(change=0.0025, change_max=2.0)
    frozen = [coded_anew, refined, *[bad(change=0.0, change_max=0.0)] * 3] * 40
    ((_, mode, at_s),) = told(play([GOOD] * 150 + frozen, fps=5.0))
    assert (mode, at_s) == ("frozen", pytest.approx(60, abs=1))
    clock = [bad(change=0.05, change_max=80.0), *[bad(change=0.0, change_max=0.0)] * 4] * 40
    assert play([GOOD] * 150 + clock, fps=5.0) == []


def test_nothing_is_usual_in_the_first_half_minute():
    assert play([GOOD] * 20 + [FAULTS["blurred"]] * 200) == []


def test_a_slow_dusk_is_followed_and_a_fault_is_not_learned():
    dusk = [bad(luma_sd=40 * 0.9998**index, sharpness=100 * 0.9996**index) for index in range(4000)]
    assert play(dusk) == []
    said = play([GOOD] * 120 + [FAULTS["blurred"]] * 4000)
    assert told(said) == [(Phase.BEGIN, "blurred", 70.0)]


def test_modes_that_are_not_named_are_not_told():
    rule = health.Config(name="health", on_s=10.0, modes=("moved",))
    assert play([GOOD] * 120 + [FAULTS["dark"]] * 60, rule) == []


def test_disarmed_it_says_nothing_and_tells_when_it_is_armed():
    said = play([GOOD] * 120 + [FAULTS["dark"]] * 100, armed=lambda t_s: not 50 < t_s < 90)
    assert [signal.key for signal in said] == ["dark"]


def test_a_look_that_cannot_tell_changes_nothing():
    unsure = bad(shift_frac=None)
    said = play([GOOD] * 120 + [FAULTS["moved"], unsure] * 30 + [unsure] * 60)
    assert told(said) == [(Phase.BEGIN, "moved", 70.0)]


def test_a_loss_is_told_while_it_lasts_and_over_with_the_next_picture():
    rule, state = health.Config(name="health", lost_s=10), health.initial()
    state, _ = health.step(View(0, 0, (), picture=GOOD), state, rule, NOWHERE)
    said = []
    for second in (4, 8, 12, 16):
        view = View(second * 10**6, 0, (), is_lost=True)
        state, signals = health.step(view, state, rule, NOWHERE)
        said += signals
    assert told(said) == [(Phase.BEGIN, "lost", 10.0)]
    view = View(17_000_000, 17_000_000, (), picture=GOOD)
    state, signals = health.step(view, state, rule, NOWHERE)
    assert told(signals) == [(Phase.END, "lost", 17.0)]
    assert signals[0].measured["value"] == 17.0


def test_a_loss_that_nobody_watched_is_told_when_it_is_over():
    rule = health.Config(name="health", lost_s=10)
    view = View(60_000_000, 25_000_000, (), picture=GOOD)
    _, signals = health.step(view, health.initial(), rule, NOWHERE)
    assert told(signals) == [(Phase.BEGIN, "lost", 45.0), (Phase.END, "lost", 60.0)]


def pipeline():
    return Pipeline(bench.camera([bench.health_rule()]), bench.People(), 0.4, SimClock())


def shots(plan, seed=1):
    return [
        bench.Look(shot, index)
        for index, shot in enumerate(faults.shots(plan, faults.footage(PLAZA), seed), 1)
    ]


def test_one_event_lasts_over_a_loss_in_one_piece():
    line, said = pipeline(), []
    for look in shots(faults.Plan("", 60)):
        said += line.step(look).events
    for silent_s in range(2, 600, 2):
        now_ns = bench.BASE_NS + 59_500_000_000 + silent_s * 10**9
        said += line.lost(silent_s * 10**6, now_ns).events
        if silent_s == 20:
            assert line.break_off(SOURCE_LOST) == ()
    for look in shots(replace(faults.Plan("", 700), gap=(0.0, 660.0))):
        said += line.step(look).events
    opened, clip_due, closed = said
    assert (opened.state, opened.label) == (EventState.OPEN, "lost")
    assert (clip_due.event_id, clip_due.state) == (opened.event_id, EventState.OPEN)
    assert (closed.event_id, closed.reason) == (opened.event_id, "back")
    assert closed.start_utc_ns == bench.BASE_NS + 69_500_000_000
    assert closed.end_utc_ns == bench.BASE_NS + 660 * 10**9
    assert lines.event_body(closed)["onvif_topic"] == "tns1:VideoSource/SignalLoss"


def test_a_camera_that_never_came_is_lost_too():
    line = pipeline()
    said = [line.lost(silent_s * 10**6, bench.BASE_NS).events for silent_s in (4, 8, 12, 16)]
    (opened,) = [event for events in said for event in events]
    assert opened.label == "lost"
    (closed,) = line.step(shots(faults.Plan("", 1))[0]).events
    assert closed.reason == "back"


def loiter(**options):
    config = analytics.rule("loiter").Config(name="stays", zone="place", dwell_s=5.0, **options)
    return Kinded("loiter", config)


@pytest.mark.parametrize("maker", [faults.black, faults.overexposed, faults.frozen])
def test_who_cannot_see_is_blind_and_that_is_told(maker):
    plan = maker(np.random.default_rng(1))
    standing = replace(plan, people=lambda _t_s: ((0.4, 0.5, 0.1, 0.3),))
    line = Pipeline(bench.camera([loiter(), bench.health_rule()]), bench.People(), 0.4, SimClock())
    said, reasons = [], []
    for look in shots(standing):
        said += line.step(look).events
        reasons.append(line.rules.blindness()["stays"].reason)
    (fault,) = (event for event in said if event.kind == "camera_health" and event.end_utc_ns)
    assert set(reasons) == {"", fault.label}
    assert reasons[-1] == ""
    blind_s = (fault.end_utc_ns - fault.start_utc_ns) / 1e9
    assert line.rules.blindness()["stays"].total_s == pytest.approx(blind_s, abs=6)
    assert line.rules.blindness()["health"] == Blindness("", 0.0)
    visits = [event for event in said if event.kind == "loiter"]
    assert [event.state.value for event in visits] == ["open", "closed", "open"]
    assert visits[1].end_utc_ns <= fault.start_utc_ns + 2 * 10**9


def test_a_moved_camera_blinds_who_needs_the_ground_or_the_picture_and_nobody_else():
    plan = next(
        plan
        for plan in (faults.shifted(np.random.default_rng(seed)) for seed in range(9))
        if plan.truths
    )
    rules = [loiter(), bench.removed_rule(), bench.health_rule()]
    line = Pipeline(bench.camera(rules), bench.People(), 0.4, SimClock())
    seen = {"stays": set(), "removed": set()}
    for look in shots(plan):
        line.step(look)
        for name, reasons in seen.items():
            reasons.add(line.rules.blindness()[name].reason)
    assert seen == {"stays": {""}, "removed": {"", "moved"}}
    assert GROUND in health.SPEC.blinds["moved"]


def test_while_the_source_is_lost_the_others_are_blind():
    line = Pipeline(bench.camera([loiter(), bench.health_rule()]), bench.People(), 0.4, SimClock())
    for look in shots(faults.Plan("", 20)):
        line.step(look)
    line.lost(12_000_000, bench.BASE_NS)
    assert line.rules.blindness()["stays"] == Blindness(SOURCE_LOST, 12.0)
    line.lost(14_000_000, bench.BASE_NS)
    assert line.rules.blindness()["stays"] == Blindness(SOURCE_LOST, 14.0)


@pytest.fixture(scope="module")
def clips():
    return {path.stem: faults.footage(path) for path in bench.CLIPS if path.exists()}


@pytest.mark.parametrize("maker", bench.HEALTH, ids=lambda maker: maker.__name__)
def test_rendered_faults_are_told_and_nothing_else_is(maker, clips):
    scenes = bench.scenes(maker, clips, [bench.health_rule()], range(bench.SEEDS))
    score = bench.score(maker.__name__, scenes)
    assert score.scenes == bench.SEEDS
    assert score.recall >= 0.95, score.missed
    assert score.precision >= 0.95 or len(score.false) == 0, score.false


def test_a_moving_camera_is_no_place_for_it():
    """What it says of footage from a moving camera: that the view is another, and only that."""
    pictures = {"bikes": faults.footage(BIKES)}
    scenes = list(bench.scenes(faults.untouched, pictures, [bench.health_rule()], [1]))
    labels = {event.label for _, _, events in scenes for event in events}
    assert labels <= {"moved", "blurred"}


def coded(path, pictures, bit_rate: int) -> None:
    """Write a file as a camera's encoder would: ten pictures a second, a key frame each second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        stream.bit_rate, stream.gop_size = bit_rate, 10
        stream.codec_context.max_b_frames = 0
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.video
@pytest.mark.parametrize("bit_rate", [150_000, 1_000_000])
@pytest.mark.parametrize("has_clock", [False, True])
def test_one_picture_coded_again_and_again_is_frozen_but_not_with_a_running_clock(
    tmp_path, bit_rate, has_clock
):
    live = [frame.rgb(640, 360) for frame in itertools.islice(frames(PLAZA), 50)]
    pictures = live + [live[-1]] * 500
    if has_clock:
        pictures = [picture.copy() for picture in pictures]
        for index, picture in enumerate(pictures):
            cv2.putText(picture, f"07:40:{index // 10:02d}", (10, 24), 0, 0.6, (255, 255, 255), 1)
    coded(tmp_path / "frozen.mp4", pictures, bit_rate)
    line = Pipeline(
        replace(bench.camera([bench.health_rule()]), motion=MotionConfig()),
        bench.People(),
        0.4,
        SimClock(),
    )
    said = []
    for frame in frames(tmp_path / "frozen.mp4"):
        motion = line.watch(frame)
        if motion is not None:
            frame_view = View(frame.t_us, 0, (), picture=motion.picture)
            said += line.apply(frame_view, frame.utc_ns).events
    labels = [event.label for event in said]
    assert labels == ([] if has_clock else ["frozen"])
