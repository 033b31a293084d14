"""From reading to writing: whole groups, one waking each, and nothing lost in silence."""

import threading
import time
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.clock import NS_PER_S
from agent.core.model import Packet
from agent.vision.feed import TOO_SLOW, Feed, Inbox
from agent.vision.segment import Gap
from tests.vision.test_ring import packet


def stream(count: int, gop: int = 10) -> list[Packet]:
    return [packet(dts, is_key=dts % gop == 0) for dts in range(count)]


def taken(inbox: Inbox) -> list:
    """End the inbox and take all that is in it."""
    inbox.end([])
    found: list = []
    while not found or found[-1] is not None:
        found += inbox.take()
    return found[:-1]


def test_a_group_is_handed_over_with_the_key_frame_that_ends_it() -> None:
    inbox = Inbox(300)
    feed = Feed(inbox)
    for item in stream(25):
        feed.put(item)
    assert [found.dts for found in inbox.take()] == list(range(11))
    assert [found.dts for found in inbox.take()] == list(range(11, 21))
    assert [found.dts for found in feed.rest()] == [21, 22, 23, 24]
    assert feed.rest() == []


def test_a_long_group_is_not_held_back() -> None:
    inbox = Inbox(300)
    feed = Feed(inbox)
    for item in stream(70, gop=1000):
        feed.put(item)
    sizes = [len(inbox.take()) for _ in range(3)]
    assert sizes == [21, 21, 21]


def test_what_had_no_room_is_one_gap_up_to_the_next_key_frame() -> None:
    inbox = Inbox(39)
    feed = Feed(inbox)
    for item in stream(75):
        feed.put(item)
    assert feed.take_dropped() == 39
    assert feed.take_dropped() == 0
    before = taken(inbox)
    assert [found.dts for found in before] == list(range(31))
    rest = feed.rest()
    assert rest[0] == Gap(31 * NS_PER_S // 10, 70 * NS_PER_S // 10, 39, TOO_SLOW)
    assert [found.dts for found in rest[1:]] == [70, 71, 72, 73, 74]


def test_gap_goes_ahead_of_the_key_frame_once_there_is_room() -> None:
    inbox = Inbox(39)
    feed = Feed(inbox)
    items = stream(80)
    for item in items[:55]:
        feed.put(item)
    for _ in range(3):
        inbox.take()
    for item in items[55:]:
        feed.put(item)
    found = taken(inbox)
    assert found[0] == Gap(31 * NS_PER_S // 10, 50 * NS_PER_S // 10, 19, TOO_SLOW)
    assert [item.dts for item in found[1:]] == list(range(50, 71))


def test_session_that_ends_in_a_gap_tells_it() -> None:
    inbox = Inbox(0)
    feed = Feed(inbox)
    for item in stream(6):
        feed.put(item)
    assert feed.rest() == [Gap(0, NS_PER_S // 2, 6, TOO_SLOW)]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=200),
    st.integers(1, 40),
)
def test_every_packet_is_handed_over_or_counted(
    steps: list[tuple[bool, int]], max_packets: int
) -> None:
    inbox = Inbox(max_packets)
    feed = Feed(inbox)
    put, found, waiting = [], [], 0
    for number, (is_key, takes) in enumerate(steps):
        put.append(packet(number, is_key=is_key or number == 0))
        feed.put(put[-1])
        for _ in range(takes):
            if not inbox._items.empty():
                found += inbox.take()
        waiting = max(waiting, inbox._held)
    inbox.end(feed.rest())
    while not found or found[-1] is not None:
        found += inbox.take()
    kept = [item for item in found if isinstance(item, Packet)]
    told = sum(item.packets for item in found if isinstance(item, Gap))
    assert len(kept) + told == len(put)
    assert feed.take_dropped() == told
    assert [item.dts for item in kept] == sorted({item.dts for item in kept})
    assert waiting <= max_packets
    for before, after in pairwise(found):
        if isinstance(before, Gap) and isinstance(after, Packet):
            assert after.is_key
            assert after.utc_ns == before.to_utc_ns


def test_the_writer_is_woken_by_an_end() -> None:
    inbox = Inbox(10)
    found = []
    thread = threading.Thread(target=lambda: found.append(inbox.take()))
    thread.start()
    time.sleep(0.05)
    inbox.end([replace(packet(1), is_key=True)])
    thread.join(5)
    assert found[0][-1] is None
