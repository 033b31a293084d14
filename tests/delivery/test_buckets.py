"""No lane starves, the urgent goes first, and a rate holds over any span."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.clock import NS_PER_MS, NS_PER_S
from agent.core.model import Lane
from agent.delivery.buckets import PATIENCE_NS, SHARES, ByteBucket, Shares

LANES = tuple(SHARES)
SIZES = st.dictionaries(st.sampled_from(LANES), st.integers(20, 65_536), min_size=1)


def sent_by(waiting, count, step_ns=NS_PER_MS):
    shares = Shares()
    return [shares.choose(waiting, number * step_ns) for number in range(count)]


def test_the_shares_are_the_whole():
    assert sum(SHARES.values()) == pytest.approx(1.0)


def test_with_every_lane_waiting_each_gets_its_share():
    sent = sent_by(dict.fromkeys(LANES, 500), 10_000)
    for lane, share in SHARES.items():
        assert sent.count(lane) / len(sent) == pytest.approx(share, abs=0.01)


@given(SIZES)
def test_nobody_gets_less_than_its_share_of_the_bytes_whatever_the_sizes(sizes):
    sent = sent_by(sizes, 3000, step_ns=1)
    total_bytes = sum(sizes[lane] for lane in sent)
    for lane, size_bytes in sizes.items():
        got_bytes = sent.count(lane) * size_bytes
        assert got_bytes >= SHARES[lane] * total_bytes - 2 * max(sizes.values())


def test_what_nobody_else_wants_goes_to_the_urgent():
    sent = sent_by({Lane.ALARM: 500, Lane.BACKFILL: 500}, 1000)
    assert sent.count(Lane.ALARM) == pytest.approx(950, abs=5)


def test_an_alarm_that_comes_alone_waits_for_nobody():
    shares = Shares()
    others = {Lane.STATE: 300, Lane.TELEMETRY: 300, Lane.BACKFILL: 300}
    for number in range(1000):
        shares.choose(others, number)
    assert shares.choose({Lane.ALARM: 300} | others, 1000) is Lane.ALARM


def test_a_lane_that_was_idle_has_saved_nothing():
    shares = Shares()
    both = {Lane.ALARM: 300, Lane.STATE: 300}
    for number in range(2):
        shares.choose(both, number)
    shares.choose({Lane.ALARM: 300}, 2)
    assert [shares.choose(both, 3 + number) for number in range(3)] == [Lane.ALARM] * 3


def test_after_a_minute_without_anything_a_lane_goes_before_all_others():
    shares = Shares({Lane.ALARM: 1.0, Lane.BACKFILL: 0.0})
    both = {Lane.ALARM: 300, Lane.BACKFILL: 300}
    sent = [shares.choose(both, second * NS_PER_S) for second in range(200)]
    assert [n for n, lane in enumerate(sent) if lane is Lane.BACKFILL] == [60, 120, 180]
    assert PATIENCE_NS == 60 * NS_PER_S


@given(
    rate=st.integers(1000, 1_000_000),
    steps=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 70_000)), max_size=300),
)
def test_no_ten_seconds_hold_more_than_the_rate_and_one_chunk(rate, steps):
    bucket, now_ns, sent = ByteBucket(), 5 * NS_PER_S, []
    bucket.set_rate(rate, now_ns)
    for wait_ms, size_bytes in steps:
        now_ns += wait_ms * NS_PER_MS
        if bucket.may(size_bytes, now_ns):
            bucket.spend(size_bytes, now_ns)
            sent.append((now_ns, size_bytes))
    burst_bytes = max([bucket.depth_bytes, *(size for _, size in sent)])
    for first, (begin_ns, _) in enumerate(sent):
        inside = [size for at_ns, size in sent[first:] if at_ns - begin_ns < 10 * NS_PER_S]
        assert sum(inside) <= 10 * rate + burst_bytes + 1


def test_what_may_not_wait_counts_all_the_same():
    bucket = ByteBucket()
    bucket.set_rate(10_000, 0)
    bucket.spend(30_000, 0)
    assert not bucket.may(100, 2 * NS_PER_S)
    assert bucket.wait_s(100, 2 * NS_PER_S) == pytest.approx(1.01)
    assert bucket.may(100, 4 * NS_PER_S)
    bucket.spend(10_000_000, 4 * NS_PER_S)
    for second in range(5, 15):
        bucket.spend(10_000, second * NS_PER_S)
    assert bucket.wait_s(1, 15 * NS_PER_S) <= 1001, "a debt that is forgotten in the end"


def test_without_a_rate_everything_goes():
    bucket = ByteBucket()
    bucket.spend(1 << 40, 0)
    assert bucket.may(1 << 40, 0)
    assert bucket.wait_s(1 << 40, 0) == 0.0
    bucket.set_rate(10_000, NS_PER_S)
    assert bucket.may(1000, 3 * NS_PER_S)
    bucket.set_rate(0, 3 * NS_PER_S)
    assert bucket.may(1 << 40, 3 * NS_PER_S)
