"""The window follows the link: about 1.3 times bandwidth times delay, whatever the link."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.delivery.window import (
    CHUNK_BYTES,
    KIB,
    LARGE_CHUNK_BYTES,
    LEAST_CHUNK_BYTES,
    MOST_PACED_BYTES,
    MOST_WINDOW_BYTES,
    SMALL_CHUNK_BYTES,
    SendWindow,
)

S = 1_000_000_000


def drive(window, rate_bytes_per_s, delay_s, spans_s=10.0, start_ns=0):
    """A link of a fixed rate and delay with an endless queue; gives the mean bytes a second."""
    window.reconnected(was_stuck=False)
    now, free_at, token, arrivals, delivered = start_ns, start_ns, 0, [], 0
    end = start_ns + int(spans_s * S)
    while now < end:
        while window.has_room:
            token += 1
            size = window.chunk_bytes
            window.sent(token, size, now)
            free_at = max(free_at, now) + int(size / rate_bytes_per_s * S)
            arrivals.append((free_at + int(delay_s * S), token, size))
        at, first, size = arrivals.pop(0)
        now = max(now, at)
        window.acked(first, now)
        delivered += size
    return delivered / spans_s


def test_it_begins_with_one_chunk():
    window = SendWindow()
    assert window.chunk_bytes == window.window_bytes == CHUNK_BYTES
    window.sent(1, CHUNK_BYTES, 0)
    assert not window.has_room


@pytest.mark.parametrize(
    ("name", "rate", "delay_s", "chunk"),
    [
        ("wan", 2_500_000, 0.08, CHUNK_BYTES),
        ("fast wan", 12_500_000, 0.08, CHUNK_BYTES),
        ("far", 2_500_000, 0.3, CHUNK_BYTES),
        ("slow", 30_000, 0.1, SMALL_CHUNK_BYTES),
        ("lan", 100_000_000, 0.0005, LARGE_CHUNK_BYTES),
    ],
)
def test_it_fills_the_link_without_flooding_it(name, rate, delay_s, chunk):
    window = SendWindow()
    assert drive(window, rate, delay_s) > 0.8 * rate
    assert window.chunk_bytes == chunk
    bdp = rate * delay_s
    assert window.in_flight_bytes <= min(1.3 * (bdp + 2 * chunk) + chunk, MOST_WINDOW_BYTES + chunk)


def test_its_own_queue_does_not_count_as_the_delay_of_the_link():
    window = SendWindow()
    drive(window, 2_500_000, 0.08, spans_s=5)
    early = window.window_bytes
    drive(window, 2_500_000, 0.08, spans_s=120, start_ns=5 * S)
    assert window.window_bytes <= 1.2 * early


def test_a_satellite_link_is_capped():
    window = SendWindow()
    drive(window, 50_000_000, 0.6)
    assert window.window_bytes == MOST_WINDOW_BYTES


def test_it_follows_a_link_that_gets_slower():
    window = SendWindow()
    drive(window, 10_000_000, 0.05)
    before = window.window_bytes
    drive(window, 100_000, 0.05, spans_s=30, start_ns=11 * S)
    assert window.window_bytes < before / 4
    assert window.chunk_bytes == SMALL_CHUNK_BYTES


def test_after_a_time_out_chunks_are_small_and_grow_again():
    window = SendWindow()
    for _ in range(4):
        window.sent(1, window.chunk_bytes, 0)
        window.reconnected(was_stuck=True)
    assert window.chunk_bytes == LEAST_CHUNK_BYTES == 4 * KIB
    assert window.in_flight_bytes == 0
    drive(window, 2_500_000, 0.05, spans_s=2)
    assert window.chunk_bytes == CHUNK_BYTES


def test_a_new_connection_keeps_what_was_learnt():
    window = SendWindow()
    drive(window, 2_500_000, 0.08)
    learnt = window.window_bytes
    window.reconnected(was_stuck=False)
    assert (window.window_bytes, window.in_flight_bytes) == (learnt, 0)


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["sent", "acked", "dropped", "reconnected"]),
            st.integers(0, 8),
            st.integers(0, 3 * S),
        ),
        max_size=60,
    )
)
def test_it_stays_within_its_bounds_whatever_happens(steps):
    window, now, token, under_way = SendWindow(), 0, 0, {}
    for what, pick, passes in steps:
        now += passes
        if what == "sent" and window.has_room:
            token += 1
            under_way[token] = window.chunk_bytes
            window.sent(token, window.chunk_bytes, now)
        elif what in ("acked", "dropped"):
            chosen = sorted(under_way)[pick % len(under_way)] if under_way else -1
            under_way.pop(chosen, None)
            window.acked(chosen, now) if what == "acked" else window.dropped(chosen)
        elif what == "reconnected":
            under_way.clear()
            window.reconnected(was_stuck=bool(pick % 2))
        assert window.in_flight_bytes == sum(under_way.values())
        assert window.chunk_bytes <= window.window_bytes <= MOST_WINDOW_BYTES
        assert LEAST_CHUNK_BYTES <= window.chunk_bytes <= LARGE_CHUNK_BYTES
        assert window.in_flight_bytes < MOST_WINDOW_BYTES + LARGE_CHUNK_BYTES


def test_where_the_kernel_keeps_the_queue_short_it_gets_more_to_send_once_the_rate_has_settled():
    window = SendWindow()
    window.is_paced = True
    drive(window, 2_500_000, 0.08, spans_s=0.3)
    assert window.pace_bytes_per_s == 0
    drive(window, 2_500_000, 0.08, spans_s=4.0)
    bdp_bytes = window.bandwidth_bytes_per_s * window.delay_ns / S
    assert window.window_bytes >= min(2.9 * bdp_bytes, MOST_PACED_BYTES)
    assert 1.0 < window.pace_bytes_per_s / window.bandwidth_bytes_per_s < 1.2
    window.reconnected(was_stuck=False)
    assert window.pace_bytes_per_s == 0
    assert window.window_bytes <= MOST_WINDOW_BYTES


def test_without_such_a_kernel_the_socket_is_never_held_back():
    window = SendWindow()
    drive(window, 2_500_000, 0.08)
    assert window.pace_bytes_per_s == 0
    assert window.window_bytes <= MOST_WINDOW_BYTES
