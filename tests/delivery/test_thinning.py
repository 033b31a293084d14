"""Thinning as a decision: one in four, evenly in time, each kind for itself, nothing for ever."""

import itertools
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.delivery import thinning
from agent.delivery.thinning import KEPT_OF, TIMES, Block, Candidate, Progress

KINDS = st.sampled_from(("position", "counting", "sample"))


def rows_of(*made, boot=1):
    """Rows from pairs of topic and time."""
    return [
        Candidate(number, topic, boot, time_ns) for number, (topic, time_ns) in enumerate(made, 1)
    ]


def stay(rows):
    gone = set(thinning.thinned(rows))
    return [row for row in rows if row.row_id not in gone]


@settings(deadline=None)
@given(st.lists(st.tuples(KINDS, st.integers(0, 1000), st.integers(1, 2)), max_size=200))
def test_of_every_kind_at_least_one_stays_and_at_most_one_in_four(made):
    rows, now_ns = [], 0
    for number, (topic, step_ns, boot) in enumerate(made, 1):
        now_ns += step_ns
        rows.append(Candidate(number, topic, boot, now_ns))
    kept = Counter((row.boot, row.topic) for row in stay(rows))
    for kind, count in Counter((row.boot, row.topic) for row in rows).items():
        assert 1 <= kept[kind] <= -(-count // KEPT_OF)


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 10_000))
def test_what_comes_evenly_stays_evenly(count, step_ns):
    rows = rows_of(*(("position", number * step_ns) for number in range(count)))
    kept = stay(rows)
    assert len(kept) == -(-count // KEPT_OF)
    for before, after in itertools.pairwise(kept):
        assert (after.mono_ns - before.mono_ns) <= (KEPT_OF + 1) * step_ns


def test_a_burst_does_not_take_the_share_of_the_quiet_hours():
    burst = [("position", 500_000 + number) for number in range(60)]
    quiet = [("position", number * 10_000) for number in range(60)]
    kept = stay(rows_of(*sorted([*burst, *quiet], key=lambda pair: pair[1])))
    quiet_kept = [row for row in kept if not 500_000 < row.mono_ns < 500_060]
    assert len(quiet_kept) >= 28
    assert max(b.mono_ns - a.mono_ns for a, b in itertools.pairwise(kept)) <= 40_000


def test_rows_made_at_one_moment_are_counted_instead():
    assert len(stay(rows_of(*[("position", 7)] * 40))) == 10


def test_the_order_is_thinned_again_and_again_then_whole_and_beats_first():
    found = list(thinning.blocks(Progress((30, 20, 10, 5), (3, 2, 1, 0))))
    assert [(block.are_beats, block.times) for block in found] == [
        *((True, times) for times in range(TIMES)),
        *((False, times) for times in range(TIMES)),
        (True, TIMES),
        (False, TIMES),
    ]
    assert found[1] == Block(are_beats=True, times=1, after_id=20, last_id=30)
    assert found[-2] == Block(are_beats=True, times=3, after_id=5, last_id=10)
    assert [block.is_thinned for block in found] == [True] * 6 + [False] * 2


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 200))
def test_every_row_is_thinned_in_turn_and_gone_in_the_end(puts, block_rows):
    """A store of rows of one kind, as `eviction` works it: it empties, and in the right order."""
    progress, alive, times, last_id = Progress(), {}, Counter(), 0
    for count in puts:
        for row_id in range(last_id + 1, last_id + count + 1):
            alive[row_id] = Candidate(row_id, "position", 1, row_id * 1000)
        last_id += count
        progress = work(progress, alive, times, block_rows)
    for _ in range(10_000):
        if not alive:
            break
        before = (len(alive), progress)
        progress = work(progress, alive, times, block_rows)
        assert (len(alive), progress) != before, "every turn gets on"
    assert not alive


def work(progress, alive, times, block_rows):
    for block in thinning.blocks(progress):
        rows = [alive[row_id] for row_id in sorted(alive)]
        rows = [row for row in rows if block.after_id < row.row_id <= block.last_id][:block_rows]
        if rows and not block.are_beats:
            assert all(times[row.row_id] == block.times for row in rows)
            gone = thinning.thinned(rows) if block.is_thinned else [row.row_id for row in rows]
            times.update(row.row_id for row in rows)
            for row_id in gone:
                del alive[row_id]
            return thinning.moved(progress, block, rows[-1].row_id)
    return progress
