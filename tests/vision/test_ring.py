"""The ring of newest packets: bounds, whole groups, a key frame in front."""

import threading
from dataclasses import replace
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.clock import NS_PER_S
from agent.core.model import Packet
from agent.vision.ring import Ring


def packet(dts: int, *, is_key: bool = False, size: int = 10, run: str = "r1") -> Packet:
    """One picture at `dts` tenths of a second."""
    return Packet(
        run=run,
        pts=dts,
        dts=dts,
        time_base=Fraction(1, 10),
        is_key=is_key,
        is_corrupt=False,
        arrival_mono_ns=0,
        utc_ns=dts * NS_PER_S // 10,
        camera_utc_ns=None,
        payload=b"x" * size,
    )


def filled(count: int, *, gop: int = 10, max_s: float = 1e6, max_bytes: int = 1 << 30) -> Ring:
    ring = Ring(max_s, max_bytes)
    for dts in range(count):
        ring.put(packet(dts, is_key=dts % gop == 0))
    return ring


def test_empty_ring_has_nothing() -> None:
    ring = Ring(10, 1000)
    assert (ring.size_bytes, ring.newest_utc_ns, ring.runs(), ring.after("r1", None)) == (
        0,
        None,
        (),
        (),
    )


def test_nothing_is_taken_before_a_key_frame() -> None:
    ring = Ring(10, 1000)
    ring.put(packet(0))
    assert ring.size_bytes == 0
    ring.put(packet(1, is_key=True))
    ring.put(packet(2))
    assert [found.dts for found in ring.after("r1", None)] == [1, 2]


def test_whole_groups_leave_when_seconds_run_out() -> None:
    ring = filled(100, max_s=2.0)
    kept = ring.after("r1", None)
    assert (kept[0].dts, kept[-1].dts) == (70, 99)
    assert ring.size_bytes == 30 * 10
    ring.put(packet(100, is_key=True))
    ring.put(packet(101))
    assert ring.after("r1", None)[0].dts == 80


def test_at_least_the_wanted_seconds_stay() -> None:
    for count in range(30, 120):
        kept = filled(count, max_s=2.0).after("r1", None)
        assert kept[-1].utc_ns - kept[0].utc_ns >= 2 * NS_PER_S - NS_PER_S // 10


def test_whole_groups_leave_when_bytes_run_out() -> None:
    ring = filled(100, max_bytes=250)
    kept = ring.after("r1", None)
    assert (kept[0].dts, len(kept)) == (80, 20)


def test_group_without_end_is_let_go() -> None:
    ring = filled(1000, gop=10_000, max_bytes=500)
    assert ring.size_bytes == 0
    assert ring.newest_utc_ns is None
    ring.put(packet(1001, is_key=True))
    assert [found.dts for found in ring.after("r1", None)] == [1001]


def test_after_gives_what_is_newer_in_one_run() -> None:
    ring = filled(20)
    ring.put(packet(0, is_key=True, run="r2"))
    ring.put(packet(1, run="r2"))
    assert ring.runs() == ("r1", "r2")
    assert [found.dts for found in ring.after("r1", 16)] == [17, 18, 19]
    assert [found.dts for found in ring.after("r2", None)] == [0, 1]
    assert ring.after("r1", 19) == ()
    assert ring.after("r3", None) == ()


def test_packet_of_another_run_needs_a_key_frame() -> None:
    ring = filled(5)
    ring.put(packet(5, run="r2"))
    assert ring.runs() == ("r1",)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 400), st.integers(1, 30)), max_size=120),
    st.floats(0.5, 20),
    st.integers(1, 2000),
)
def test_bounds_and_order_hold_whatever_comes(
    pieces: list[tuple[bool, int, int]], max_s: float, max_bytes: int
) -> None:
    ring = Ring(max_s, max_bytes)
    dts, put = 0, []
    for is_key, size, step in pieces:
        dts += step
        put.append(packet(dts, is_key=is_key, size=size))
        ring.put(put[-1])
        kept = ring.after("r1", None)
        assert ring.size_bytes == sum(len(found.payload) for found in kept) <= max_bytes
        if kept:
            assert kept[0].is_key
            assert kept == tuple(put[-len(kept) :])
            second_key = next((found for found in kept[1:] if found.is_key), None)
            if second_key is not None:
                assert second_key.utc_ns >= put[-1].utc_ns - round(max_s * NS_PER_S)


def test_ring_knows_what_it_no_longer_holds() -> None:
    ring = filled(100, max_s=2.0)  # 70 to 99 are left
    assert ring.after("r1", None)[0].dts == 70
    assert not ring.is_whole_after("r1", None)
    assert not ring.is_whole_after("r1", 68)
    assert ring.is_whole_after("r1", 69)
    assert ring.is_whole_after("r1", 80)
    assert not ring.is_whole_after("r2", None)  # nothing of it is here
    ring.put(replace(packet(0, is_key=True, run="r2"), utc_ns=100 * NS_PER_S // 10))
    assert ring.is_whole_after("r2", None)
    assert ring.is_whole_after("r1", 79)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), max_size=80),
    st.integers(10, 300),
    st.integers(-1, 80),
)
def test_whole_means_that_no_packet_is_missing(
    stream: list[tuple[bool, bool]], max_bytes: int, after: int
) -> None:
    ring = Ring(1e6, max_bytes)
    run, put = 0, []
    for dts, (is_key, is_break) in enumerate(stream):
        run += is_break
        has_key = is_key or is_break or dts == 0
        put.append(packet(dts, is_key=has_key, run=f"r{run}"))
        ring.put(put[-1])
    for name in ring.runs():
        wanted = [found for found in put if found.run == name and found.dts > after]
        is_whole = list(ring.after(name, after)) == wanted
        assert is_whole or not ring.is_whole_after(name, after)
        if ring.is_whole_after(name, after) is False and wanted:
            assert not is_whole


def test_readers_and_the_writer_do_not_disturb_each_other() -> None:
    ring = Ring(1.0, 1 << 20)
    done = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not done.is_set():
            kept = ring.after("r1", None)
            if kept and not (kept[0].is_key and kept[-1].dts - kept[0].dts == len(kept) - 1):
                wrong.append(kept)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for dts in range(5000):
        ring.put(packet(dts, is_key=dts % 10 == 0))
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_what_a_closed_file_holds_leaves_after_a_while() -> None:
    ring = filled(60)
    ring.kept("r1", 29)  # told at 59
    ring.put(packet(60, is_key=True))
    assert ring.after("r1", None)[0].dts == 0  # somebody may just have read the rows
    for dts in range(61, 71):
        ring.put(packet(dts, is_key=dts % 10 == 0))
    assert ring.after("r1", None)[0].dts == 30
    assert ring.is_whole_after("r1", 29)
    assert not ring.is_whole_after("r1", 19)
    ring.kept("r1", 1000)
    for dts in range(71, 90):
        ring.put(packet(dts, is_key=dts % 10 == 0))
    assert ring.after("r1", None)[0].dts == 80  # the newest group always stays
    ring.put(replace(packet(0, is_key=True, run="r2"), utc_ns=9 * NS_PER_S))
    assert ring.runs() == ("r2",)


def test_word_of_another_run_evicts_nothing() -> None:
    ring = filled(30)
    ring.kept("r0", 100)
    for dts in range(30, 60):
        ring.put(packet(dts, is_key=dts % 10 == 0))
    assert ring.after("r1", None)[0].dts == 0
