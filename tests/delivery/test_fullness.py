"""How long files are kept from a centre that is full, and which."""

import random

from hypothesis import given
from hypothesis import strategies as st

from agent.delivery.fullness import JITTER_FRAC, MOST_WAIT_S, Fullness
from agent.delivery.ledger import ANY_SIZE

S = 1_000_000_000


def test_what_is_as_large_waits_and_what_is_smaller_goes_on():
    fullness = Fullness(random.Random(1))
    assert fullness.below_bytes(0) == ANY_SIZE
    until_ns = fullness.refused(1000, 10, 0)
    assert 10 * S <= until_ns <= 10 * (1 + JITTER_FRAC) * S
    assert fullness.below_bytes(until_ns - 1) == 1000
    fullness.refused(500, 10, 1)
    assert fullness.below_bytes(until_ns - 1) == 500
    assert not fullness.taken(499)
    assert fullness.is_full
    assert fullness.below_bytes(until_ns) == ANY_SIZE
    assert fullness.taken(500)
    assert not fullness.taken(500)
    assert not fullness.is_full


@given(st.lists(st.floats(0.1, 86_400), min_size=1, max_size=30), st.integers(0, 99))
def test_waits_grow_but_end(asked_s, seed):
    fullness, now_ns, before_s = Fullness(random.Random(seed)), 0, 0.0
    for retry_after_s in asked_s:
        until_ns = fullness.refused(10, retry_after_s, now_ns)
        assert fullness.refused(10, 86_400, now_ns) == until_ns, "one wait, however many ask"
        wait_s = (until_ns - now_ns) / S
        assert min(retry_after_s, MOST_WAIT_S) <= wait_s + 1e-6
        assert wait_s <= MOST_WAIT_S * (1 + JITTER_FRAC)
        assert wait_s >= min(before_s, MOST_WAIT_S) - 1e-6
        now_ns, before_s = until_ns, wait_s


def test_devices_that_wait_for_the_same_room_do_not_come_at_once():
    ends = {Fullness(random.Random(seed)).refused(1, 60, 0) for seed in range(20)}
    assert len(ends) == 20
