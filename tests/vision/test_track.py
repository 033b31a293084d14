"""The tracker on made motion and on real detections with true identities."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.model import Box, Detection, Sight
from agent.vision.config import TrackConfig
from agent.vision.track import HISTORY_STEP_US, MAX_HISTORY, MAX_TRACKS, Tracker
from tests.vision.support import PLAZA, SHARED, frames, overlap, true_people

TRUTH = SHARED / "data" / "plaza_people.csv"


def person(x: float, y: float = 0.5, score: float = 0.7, label: str = "person") -> Detection:
    return Detection(label, score, Box(x, y, 0.04, 0.14))


def tracker(**options) -> Tracker:
    return Tracker(TrackConfig(**options), 0.4)


def us(seconds: float) -> int:
    return round(seconds * 1_000_000)


def test_a_track_needs_a_second_hit():
    one = tracker()
    assert one.step([person(0.5)], 0) == ()
    assert one.has_tracks
    (track,) = one.step([person(0.51)], us(0.4))
    assert (track.track_id, track.label, track.missing_s) == (1, "person", 0.0)
    assert track.age_s == pytest.approx(0.4)
    assert [point.t_us for point in track.history] == [0, us(0.4)]


def test_a_weak_detection_begins_no_track_but_carries_one_on():
    one = tracker()
    for step in range(10):
        assert one.step([person(0.5, score=0.3)], us(step * 0.4)) == ()
    assert not one.has_tracks
    for step in range(10, 40):
        score = 0.7 if step < 12 else 0.25
        tracks = one.step([person(0.5, score=score)], us(step * 0.4))
    assert tracks[0].missing_s == 0.0
    assert tracks[0].score == 0.25


def test_below_the_birth_score_nothing_is_born():
    one = tracker(birth_score=0.6)
    for step in range(5):
        assert one.step([person(0.5, score=0.5)], us(step * 0.4)) == ()
    assert not one.has_tracks


def test_a_single_false_hit_leaves_nothing():
    one = tracker()
    one.step([person(0.5)], 0)
    one.step([], us(0.4))
    one.step([], us(0.8))
    assert not one.has_tracks


@pytest.mark.parametrize("rate", [2.5, 5.0, 10.0])
@pytest.mark.parametrize("speed", [0.02, 0.08, 0.15])
def test_a_walk_is_one_track_at_every_rate(rate, speed):
    one = tracker()
    ids = set()
    for step in range(int(0.8 / speed * rate)):
        t = step / rate
        ids |= {track.track_id for track in one.step([person(0.05 + speed * t)], us(t))}
    assert ids == {1}


def test_two_who_pass_each_other_keep_their_ids():
    one = tracker()
    for step in range(60):
        t = step * 0.2
        tracks = one.step([person(0.1 + 0.06 * t, 0.50), person(0.8 - 0.06 * t, 0.53)], us(t))
    by_id = {track.track_id: track.box.x for track in tracks}
    assert set(by_id) == {1, 2}
    assert by_id[1] > 0.75
    assert by_id[2] < 0.15


def test_missing_grows_with_stream_time_and_the_track_ends():
    one = tracker(max_missing_s=2.0)
    one.step([person(0.5)], 0)
    one.step([person(0.5)], us(0.4))
    seen = []
    for step in range(1, 8):
        tracks = one.step([], us(0.4 + step * 0.4))
        seen.append(round(tracks[0].missing_s, 2) if tracks else None)
    assert seen == [0.4, 0.8, 1.2, 1.6, 2.0, None, None]
    assert not one.has_tracks


def test_rare_looks_do_not_end_a_track_at_the_first_miss():
    one = tracker(max_missing_s=2.0)
    one.step([person(0.5)], 0)
    one.step([person(0.5)], us(4))
    assert len(one.step([], us(8))) == 1
    (track,) = one.step([person(0.5)], us(12))
    assert track.track_id == 1
    one.step([], us(16))
    assert one.step([], us(20)) == ()


def test_without_a_look_a_track_is_only_predicted():
    one = tracker()
    for step in range(5):
        (track,) = one.step([person(0.2 + 0.02 * step)], us(step * 0.4)) or (None,)
    (predicted,) = one.step(None, us(4 * 0.4 + 0.2))
    assert not predicted.history[-1].is_detected
    assert predicted.box.x == pytest.approx(0.2 + 0.02 * 4.5, abs=0.004)
    assert predicted.missing_s == pytest.approx(0.2)
    assert track.history[-1].is_detected
    for step in range(50):
        (track,) = one.step(None, us(2 + step * 0.4))
    assert track.missing_s > 19


def test_a_track_is_carried_along_with_the_picture():
    one = tracker()
    one.step([person(0.5)], 0)
    one.step([person(0.5)], us(0.4))
    for step in range(1, 4):
        (box,) = one.boxes
        (track,) = one.step(None, us(0.4 + 0.2 * step), [box._replace(x=box.x + 0.03)])
        assert track.history[-1].sight is Sight.PROPAGATED
    assert track.box.x == pytest.approx(0.59)
    assert track.missing_s == pytest.approx(0.6)
    (track,) = one.step(None, us(1.2), [None])
    assert track.history[-1].sight is Sight.PREDICTED
    assert track.box.x == pytest.approx(0.62, abs=0.01)  # it goes on as it went
    (track,) = one.step([person(0.65)], us(1.4))
    assert (track.track_id, track.history[-1].sight) == (1, Sight.DETECTED)


def test_what_the_detector_missed_is_not_carried_by_what_hides_it():
    one = tracker()
    one.step([person(0.5)], 0)
    one.step([person(0.5)], us(0.4))
    one.step([], us(0.8))
    (box,) = one.boxes
    (track,) = one.step(None, us(1.0), [box._replace(x=box.x - 0.1)])
    assert track.history[-1].sight is Sight.PREDICTED
    assert track.box.x == pytest.approx(0.5)


LEFT, RIGHT = Box(0.0, 0.0, 0.4, 1.0), Box(0.6, 0.0, 0.4, 1.0)


def test_where_the_detector_did_not_look_nothing_is_missed():
    one = tracker(max_missing_s=2.0)
    one.step([person(0.1), person(0.8)], 0)
    one.step([person(0.1), person(0.8)], us(0.4))
    for step in range(2, 12):
        tracks = one.step([person(0.1)], us(step * 0.4), looked=[LEFT])
        assert len(tracks) == 2
    assert one.waited_s(us(4.4)) == pytest.approx((0.0, 4.0))
    (_, track) = one.step([person(0.1), person(0.8)], us(4.8), looked=[LEFT, RIGHT])
    assert (track.track_id, track.missing_s) == (2, 0.0)


def test_what_was_looked_for_and_not_seen_is_missed_and_ends():
    one = tracker(max_missing_s=2.0)
    one.step([person(0.1), person(0.8)], 0)
    one.step([person(0.1), person(0.8)], us(0.4))
    for step in range(2, 12):
        tracks = one.step([person(0.1)], us(step * 0.4), looked=[LEFT, RIGHT])
    assert [track.track_id for track in tracks] == [1]


def test_a_track_at_the_edge_of_what_was_looked_at_is_not_missed():
    one = tracker(max_missing_s=2.0)
    one.step([person(0.39)], 0)
    one.step([person(0.39)], us(0.4))
    for step in range(2, 12):
        assert one.step([], us(step * 0.4), looked=[LEFT])
    one.step([], us(4.8))  # the whole frame
    assert one.step([], us(5.2)) == ()


def test_a_prediction_does_not_run_away():
    one = tracker(max_missing_s=30)
    one.step([person(0.2)], 0)
    one.step([person(0.25)], us(0.2))
    (track,) = one.step([], us(10))
    assert 0.4 < track.box.x < 0.6


def test_a_lost_one_is_met_again_where_it_went():
    one = tracker()
    for step in range(10):
        one.step([person(0.2 + 0.03 * step)], us(step * 0.4))
    one.step([], us(10 * 0.4))
    one.step([], us(11 * 0.4))
    (track,) = one.step([person(0.2 + 0.03 * 12)], us(12 * 0.4))
    assert track.track_id == 1


def test_who_comes_back_where_somebody_stood_is_not_taken_by_a_lost_neighbour():
    one = tracker()
    here, there = person(0.40), person(0.47)
    for step in range(20):
        one.step([here, there], us(step * 0.2))
    for step in range(20, 35):  # one is hidden until its track has ended
        one.step([there], us(step * 0.2))
    one.step([], us(7.0))
    for step in range(36, 40):  # and comes back while the other one is hidden
        tracks = one.step([here], us(step * 0.2))
    found = {track.track_id: track for track in tracks if not track.missing_s}
    (back,) = found.values()
    assert back.predecessor == 1
    assert 2 not in found


def test_a_known_track_does_not_jump():
    one = tracker()
    for step in range(10):
        one.step([person(0.3)], us(step * 0.2))
    one.step([person(0.36)], us(2.0))
    (other,) = one.step([person(0.36)], us(2.2))  # somebody else, who may carry its memory on
    assert (other.track_id, other.predecessor) == (2, 1)


def test_one_who_stopped_while_missed_is_met_where_it_was_seen():
    one = tracker()
    for step in range(10):  # walks, and stops as it is lost
        one.step([person(0.3 + 0.03 * step)], us(step * 0.2))
    for step in range(10, 14):
        one.step([], us(step * 0.2))
    (track,) = one.step([person(0.57)], us(2.8))
    assert (track.track_id, track.missing_s) == (1, 0.0)


def test_labels_are_not_mixed():
    one = tracker()
    for step in range(4):
        tracks = one.step([person(0.5), person(0.5, label="bicycle")], us(step * 0.4))
    assert sorted(track.label for track in tracks) == ["bicycle", "person"]


def test_two_boxes_of_one_object_are_one_track():
    one = tracker()
    for step in range(6):
        tracks = one.step([person(0.5), person(0.5, 0.505, score=0.5)], us(step * 0.4))
    assert len(tracks) == 1
    for step in range(6, 12):
        shift = 0.03 * max(0.0, 9 - step)
        tracks = one.step([person(0.5), person(0.5 + shift)], us(step * 0.4))
    assert len(tracks) == 1


def test_history_is_thinned_and_bounded():
    one = tracker()
    for step in range(2400):
        tracks = one.step([person(0.5)], us(step * 0.1))
    history = tracks[0].history
    assert len(history) <= MAX_HISTORY
    assert history[-1].t_us - history[0].t_us >= us(118)
    gaps = [b.t_us - a.t_us for a, b in itertools.pairwise(history)]
    assert max(gaps) <= HISTORY_STEP_US + us(0.1)
    assert sorted(gaps)[len(gaps) // 2] >= us(0.15)


def test_what_was_observed_stays_when_predictions_follow():
    one = tracker()
    for step in range(100):
        seen = [person(0.5)] if step % 4 == 0 else None
        tracks = one.step(seen, us(step * 0.1))
    observed = [point.t_us for point in tracks[0].history if point.is_detected]
    assert observed == [us(step * 0.4) for step in range(25)]


def test_forget_drops_all_and_gives_no_id_twice():
    one = tracker()
    one.step([person(0.5)], 0)
    one.step([person(0.5)], us(0.4))
    one.forget()
    assert not one.has_tracks
    one.step([person(0.5)], us(10))
    (track,) = one.step([person(0.5)], us(10.4))
    assert track.track_id == 2


def test_a_flood_of_detections_is_bounded():
    one = tracker()
    dice = random.Random(1)
    for step in range(3):
        flood = [
            Detection("person", 0.9, Box(dice.random(), dice.random(), 0.001, 0.001))
            for _ in range(1000)
        ]
        one.step(flood, us(step * 0.4))
    assert len(one._live) <= MAX_TRACKS


@given(
    rounds=st.lists(
        st.one_of(
            st.none(),
            st.lists(
                st.builds(
                    Detection,
                    st.sampled_from(["person", "vehicle"]),
                    st.floats(0.2, 1.0),
                    st.builds(
                        Box,
                        st.floats(0, 0.9),
                        st.floats(0, 0.9),
                        st.floats(0.01, 0.1),
                        st.floats(0.01, 0.1),
                    ),
                ),
                max_size=6,
            ),
        ),
        max_size=25,
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_comes_ids_stay_unique_and_times_true(rounds):
    one, other = tracker(), tracker()
    for step, seen in enumerate(rounds):
        t_us = us(step * 0.3)
        tracks = one.step(seen, t_us)
        assert tracks == other.step(seen, t_us)
        ids = [track.track_id for track in tracks]
        assert ids == sorted(set(ids))
        for track in tracks:
            times = [point.t_us for point in track.history]
            assert times == sorted(set(times))
            assert times[-1] == t_us
            assert track.history[-1].is_detected == (track.missing_s == 0)
            assert track.history[-1].box == track.box
            assert track.missing_s <= track.age_s


@pytest.mark.video
@pytest.mark.parametrize(
    ("every", "min_recall", "max_switches"), [(1, 0.8, 8), (2, 0.8, 8), (4, 0.65, 9)]
)
def test_real_persons_are_followed(every, min_recall, max_switches, real_detections):
    """True identities of 13 frames of the plaza; every=4 is 2.5 looks a second."""
    truth = true_people(TRUTH, 768, 576)
    one, last, hits, total, switches = tracker(), {}, 0, 0, 0
    for index, t_us, seen in real_detections:
        tracks = one.step(seen if index % every == 0 else None, t_us)
        for who, box in truth.get(index, {}).items():
            total += 1
            near = max(tracks, key=lambda track: overlap(track.box, box), default=None)
            if near is not None and overlap(near.box, box) >= 0.3:
                hits += 1
                switches += last.get(who, near.track_id) != near.track_id
                last[who] = near.track_id
    assert total == 63
    assert hits / total >= min_recall
    assert switches <= max_switches


@pytest.fixture(scope="module")
def real_detections():
    if not TRUTH.exists():
        pytest.skip("the annotation may not be committed and ../shared is absent")
    from agent.core.clock import RealClock
    from agent.vision import detect
    from agent.vision.config import DetectorConfig

    detector = detect.load(DetectorConfig(model="int8"), RealClock())
    return [
        (frame.index, frame.t_us, detector.detect(frame))
        for frame in itertools.islice(frames(PLAZA), 65)
    ]
