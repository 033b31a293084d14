"""Batches on paper: what is made, what waits, and when the device goes on without them."""

import pytest
import zstandard

from agent.core.errors import ConfigError
from agent.core.model import Lane, Row
from agent.delivery import batch, batching
from agent.delivery.batching import FIRST_REST_S, MOST_FLYING, MOST_OPEN, Batching

ROOT = "outpost/1/plaza/cam-1"
S = 1_000_000_000
TIMEOUT_S = 10.0


def rows(*ids, kind="beat", **changes):
    fields = {"lane": Lane.BACKFILL, "needs_receipt": False, "is_retained": False, "tries": 0}
    return [
        Row(
            **fields
            | {
                "row_id": number,
                "message_id": f"{number:032x}",
                "topic": f"{ROOT}/{kind}",
                "payload": b'{"seq":%d}' % number,
            }
            | changes
        )
        for number in ids
    ]


def span(first, count=10):
    return rows(*range(first, first + count))


def always(_size_bytes):
    return True


@pytest.fixture
def plan():
    return Batching([batch.compressor], TIMEOUT_S)


def send(plan, first, now_ns=0, count=10):
    """Offer a batch and let it go."""
    assert plan.wants_rows(now_ns)
    plan.offer(span(first, count), ROOT, now_ns)
    sent = plan.next(1 << 20, always, now_ns)
    assert sent.row_ids == tuple(range(first, first + count))
    return sent


def prove(plan, now_ns=0):
    sent = send(plan, 1, now_ns)
    plan.acked(sent, now_ns)
    assert plan.receipted([sent.batch_id]) == list(range(1, 11))


def test_a_frame_holds_the_rows_as_they_are_and_names_their_size():
    made = batch.pack("beat", span(1), batch.compressor())
    plain = zstandard.ZstdDecompressor().decompress(made.payload)
    assert plain.split(b"\n") == [row.payload for row in span(1)]
    assert zstandard.get_frame_parameters(made.payload).content_size == len(plain)
    assert made.batch_id == batch.batch_id(made.payload)


def test_rows_are_sorted_by_kind_and_some_go_alone():
    mixed = [
        *rows(1, 2, kind="beat"),
        *rows(3, kind="state/camera"),
        *rows(4, kind="state/disk"),
        *rows(5, needs_receipt=True),
        *rows(6, is_retained=True),
        *rows(7, topic="homeassistant/x/config"),
        *rows(8, payload=b'{\n"torn":1}'),
    ]
    found = batch.groups(mixed, ROOT)
    assert {kind: [row.row_id for row in group] for kind, group in found.items()} == {
        "beat": [1, 2],
        "state": [3, 4],
    }


def test_before_the_first_receipt_there_is_one_batch_then_there_are_many(plan):
    sent = send(plan, 1)
    assert not plan.wants_rows(0)
    plan.acked(sent, 0)
    assert not plan.wants_rows(0)
    assert plan.after_id == 10
    assert plan.receipted(["0" * 32, sent.batch_id]) == list(range(1, 11))
    for number in range(MOST_OPEN):
        plan.acked(send(plan, 11 + 10 * number), 0)
    assert not plan.wants_rows(0)
    assert plan.after_id == 10 + 10 * MOST_OPEN


def test_a_receipt_may_overtake_the_acknowledgement(plan):
    sent = send(plan, 1)
    assert plan.receipted([sent.batch_id]) == list(range(1, 11))
    plan.acked(sent, 0)
    assert len(plan) == 0
    assert plan.receipted([sent.batch_id]) == [], "a second one says nothing new"


def test_few_batches_are_unacknowledged_at_once(plan):
    prove(plan)
    sent = [send(plan, 11 + 10 * number) for number in range(MOST_FLYING)]
    plan.offer(span(100), ROOT, 0)
    assert plan.next(1 << 20, always, 0) is None
    plan.acked(sent[0], 0)
    assert plan.next(1 << 20, always, 0) is not None


def test_a_cap_holds_a_batch_back_and_it_is_not_lost(plan):
    plan.offer(span(1), ROOT, 0)
    assert plan.next(1 << 20, lambda size_bytes: size_bytes < 10, 0) is None
    assert plan.next(1 << 20, always, 0).row_ids == tuple(range(1, 11))


def test_few_rows_make_no_batch_and_are_looked_at_again_in_a_while(plan):
    plan.offer(span(1, 7), ROOT, 0)
    assert len(plan) == 0
    assert not plan.wants_rows(S // 2)
    assert plan.wants_rows(S)


def test_without_a_receipt_the_first_batch_is_given_up_and_the_rests_grow(plan):
    now_ns, rest_s = 0, FIRST_REST_S
    for _ in range(8):
        sent = send(plan, 1, now_ns)
        plan.acked(sent, now_ns)
        plan.check(now_ns + int((TIMEOUT_S - 0.1) * S))
        assert len(plan) == 1
        now_ns += int(TIMEOUT_S * S)
        plan.check(now_ns)
        assert len(plan) == 0
        assert plan.receipted([sent.batch_id]) == [], "its rows have gone another way"
        assert not plan.wants_rows(now_ns + int((rest_s - 0.1) * S))
        now_ns += int(rest_s * S)
        rest_s = min(2 * rest_s, batching.MOST_REST_S)
    prove(plan, now_ns)
    sent = send(plan, 11, now_ns)
    plan.refused(sent, "refused", now_ns)
    plan.refused(sent, "and another one under way then", now_ns)
    assert plan.wants_rows(now_ns + int(FIRST_REST_S * S)), "a receipt has ended the growth"


def test_a_centre_that_has_read_batches_is_waited_for_an_hour_before_rows_go_singly(plan):
    prove(plan)
    for number in range(3):
        plan.acked(send(plan, 11 + 10 * number), 0)
    plan.check(int(TIMEOUT_S * S))
    assert len(plan) == 0
    now_ns, waits_s = int(TIMEOUT_S * S), []
    while plan.wants_rows(now_ns):
        again, begun_ns = send(plan, 11, now_ns), now_ns
        assert not plan.wants_rows(now_ns), "one alone"
        plan.acked(again, now_ns)
        while len(plan):
            now_ns += S
            plan.check(now_ns)
        waits_s.append((now_ns - begun_ns) // S)
    assert waits_s == [20, 40, 80, 160] + [300] * 11
    prove(plan, now_ns + int(FIRST_REST_S * S))


def test_a_centre_that_can_read_batches_gets_one_soon_however_long_it_is_away(plan):
    prove(plan)
    now_ns = 0
    for _ in range(5):
        plan.refused(send(plan, 11, now_ns), "nobody listens", now_ns)
        assert not plan.wants_rows(now_ns)
        now_ns += int(FIRST_REST_S * S)
        assert plan.wants_rows(now_ns)


def test_a_centre_that_comes_back_gets_many_at_once_again(plan):
    prove(plan)
    plan.acked(send(plan, 11), 0)
    plan.check(int(TIMEOUT_S * S))
    prove(plan, int(TIMEOUT_S * S))
    assert send(plan, 11, int(TIMEOUT_S * S))
    assert plan.wants_rows(int(TIMEOUT_S * S))


def test_without_its_dictionary_a_centre_gets_plain_batches(tmp_path):
    def with_dictionary():
        return lambda plain: b"D" + plain

    plan = Batching([with_dictionary, batch.compressor], TIMEOUT_S)
    sent = send(plan, 1)
    assert sent.payload[:1] == b"D"
    plan.acked(sent, 0)
    plan.check(int(TIMEOUT_S * S))
    assert send(plan, 1, int(TIMEOUT_S * S)).payload[:4] == b"\x28\xb5\x2f\xfd"


def test_a_dictionary_that_cannot_be_read_is_done_without():
    def broken():
        raise ConfigError("delivery.dictionary_path: gone")

    plan = Batching([broken, batch.compressor], TIMEOUT_S)
    plan.offer(span(1), ROOT, 0)
    assert plan.wants_rows(S)
    assert send(plan, 1, S).row_ids


def test_a_batch_too_large_for_the_broker_is_made_again_of_half_the_rows(plan):
    plan.offer(span(1, 64), ROOT, 0)
    assert plan.next(20, always, 0) is None
    assert plan.most_rows == 32
    assert plan.wants_rows(0)
    for count in (32, 16):
        plan.offer(span(1, count), ROOT, 0)
        assert plan.next(20, always, 0) is None
    plan.offer(span(1, 8), ROOT, 0)
    assert plan.next(20, always, 0) is None
    assert not plan.wants_rows(0), "this broker takes none"


def test_a_new_connection_sends_again_what_the_broker_had_not_taken(plan):
    prove(plan)
    taken, flying = send(plan, 11), send(plan, 21)
    plan.acked(taken, 0)
    plan.reconnected(0, session_present=True)
    assert len(plan) == 1
    plan.acked(flying, 0)
    assert plan.receipted([flying.batch_id]) == []
    assert plan.receipted([taken.batch_id]) == list(range(11, 21))
    plan.acked(send(plan, 21), 0)
    plan.reconnected(0, session_present=False)
    assert len(plan) == 0


def test_where_connections_end_over_batches_rows_go_singly(plan):
    for _ in range(batching.MOST_LOSSES):
        assert plan.wants_rows(0)
        send(plan, 1)
        plan.reconnected(0, session_present=True)
    assert not plan.wants_rows(0)
    assert plan.wants_rows(int(FIRST_REST_S * S))


def test_where_a_receipt_comes_batches_pass_however_connections_end(plan):
    prove(plan)
    for number in range(batching.MOST_LOSSES + 1):
        sent = send(plan, 11)
        assert plan.receipted([sent.batch_id]) == list(range(11, 21)), "the acknowledgement is lost"
        send(plan, 21)
        plan.reconnected(0, session_present=True)
        assert plan.wants_rows(0), number


def test_switched_off_there_are_none():
    assert not Batching([], TIMEOUT_S).wants_rows(0)
