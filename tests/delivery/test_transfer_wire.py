"""Transfers against a broker and a centre that misbehave at the wire."""

import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core import wire
from agent.core.errors import OutboxFull
from tests.delivery.box import MANIFEST, TOPICS, Box, noise
from tests.delivery.centre import Running, file_receipt, until
from tests.delivery.stub_broker import StubBroker


@pytest.fixture
def box(store, tmp_path):
    return Box(store, tmp_path)


@pytest.mark.parametrize("harm", ["missing", "shorter", "longer", "altered", "folder"])
def test_a_file_that_is_not_what_was_sealed_is_never_sent(harm, box):
    (fid,) = box.seal(clip_mp4=noise(100_000))
    (good,) = box.seal(clip_mp4=noise(100_000, seed=2))
    path = box.path(fid)
    if harm in ("missing", "folder"):
        path.unlink()
    if harm == "folder":
        path.mkdir()
    if harm == "shorter":
        path.write_bytes(box.contents[fid][:-1])
    if harm == "longer":
        path.write_bytes(box.contents[fid] + b"x")
    if harm == "altered":
        path.write_bytes(box.contents[fid][:-1] + b"\0")
    with StubBroker() as stub, Running(box.transfers(stub.port)):
        assert until(lambda: box.state(fid) == "refused")
        assert until(lambda: any(good in topic for topic, _, _ in stub.published))
    assert box.reason(fid).startswith(f"clips/{box.ledger.find(fid).clip_id}/clip.mp4: ")
    assert not [topic for topic, _, _ in stub.published if fid in topic]
    why = {"shorter": "truncated", "longer": "altered", "folder": "altered"}.get(harm, harm)
    assert box.custody == [(f"file.{why}", fid)]
    told = [json.loads(row.payload) for row in box.outbox.take(10)]
    assert [message["kind"] for message in told] == ["state/files", "gap/file"]
    assert told[0]["body"]["state"] == told[1]["body"]["why"] == why
    assert told[1]["body"]["fid"] == fid
    assert wire.check("file_gap", told[1]["body"])


def answered(stub, fid, need):
    stub.publish(TOPICS.file(fid, "need"), json.dumps(need).encode())


def need(fid, ranges, **more):
    return {
        "sv": 1,
        "fid": fid,
        "ranges": ranges,
        "max_chunk_bytes": 65536,
        "rate_bytes_per_s": 0,
    } | more


def offered(stub, fid):
    return lambda: any(topic == TOPICS.file(fid, "offer") for topic, _, _ in stub.published)


def sent(stub, fid):
    chunks = {}
    for topic, payload, _ in stub.published:
        part = topic.rsplit("/", 1)[1]
        if fid in topic and part.isdigit():
            chunks[int(part)] = payload
    return chunks


def test_overlapping_and_impossible_ranges_are_cut_to_the_file(box):
    (fid,) = box.seal(clip_mp4=noise(200_000))
    with StubBroker() as stub, Running(box.transfers(stub.port, receipt_timeout_s=30)):
        assert until(offered(stub, fid))
        ranges = [[150_000, 160_000], [0, 100], [50, 120], [155_000, 2**53 - 1], [9, 3], [7.0, 8]]
        answered(stub, fid, need(fid, ranges))
        assert until(lambda: any(topic.endswith("done") for topic, _, _ in stub.published))
        assert {at: len(piece) for at, piece in sent(stub, fid).items()} == {
            0: 120,
            150_000: 10_000,
        }


@pytest.mark.parametrize(
    "wrong",
    [
        {"ranges": [[-1, 5]]},
        {"ranges": [[0, 2**60]]},
        {"ranges": [[300_000, 400_000]]},
        {"ranges": [[5, 1]]},
        {"ranges": [[0]]},
        {"ranges": [[0, 1]] * 1025},
        {"ranges": "all"},
        {"max_chunk_bytes": 0},
        {"max_chunk_bytes": 2**40},
        {"rate_bytes_per_s": -1},
        {"fid": "1" * 32},
        {"fid": "../../etc/passwd"},
        {"refused": 7},
        {"refused": "x" * 300},
        {"more": 1},
        {"sv": 2},
    ],
)
def test_an_absurd_need_changes_nothing(wrong, box):
    (fid,) = box.seal(clip_mp4=noise(200_000))
    with (
        StubBroker() as stub,
        Running(box.transfers(stub.port, receipt_timeout_s=30)) as running,
    ):
        assert until(offered(stub, fid))
        answered(stub, fid, need(fid, [[0, 5]]) | wrong)
        assert until(lambda: running.worker.status().bad_messages == 1)
        assert sent(stub, fid) == {}
        assert box.state(fid) == "waiting"
        answered(stub, fid, need(fid, [[0, 5]]))
        assert until(lambda: 0 in sent(stub, fid))


def test_a_flood_of_needs_is_answered_once(box):
    (fid,) = box.seal(clip_mp4=noise(20_000))
    with (
        StubBroker() as stub,
        Running(box.transfers(stub.port, receipt_timeout_s=30)) as running,
    ):
        assert until(offered(stub, fid))
        for _ in range(50):
            answered(stub, fid, need(fid, [[0, 20_000]]))
        assert until(lambda: running.worker.status().bad_messages > 40)
        assert running.worker.status().sent_bytes <= 10 * 20_000


def test_an_endless_need_is_served_ever_more_rarely(box):
    (fid,) = box.seal(clip_mp4=noise(20_000))
    stub = StubBroker()

    def always_everything(topic):
        if topic.endswith(("offer", "done")):
            answered(stub, fid, need(fid, [[0, 20_000]]))
        return 0

    stub.acks = always_everything
    with stub, Running(box.transfers(stub.port, receipt_timeout_s=0.4)) as running:
        time.sleep(2.0)
        assert 20_000 < running.worker.status().sent_bytes <= 8 * 20_000
    assert box.state(fid) == "waiting"


def test_the_rate_the_centre_asks_for_is_kept(box):
    (fid,) = box.seal(clip_mp4=noise(60_000))
    with StubBroker() as stub, Running(box.transfers(stub.port, receipt_timeout_s=30)):
        assert until(offered(stub, fid))
        begun = time.monotonic()
        answered(stub, fid, need(fid, [[0, 60_000]], max_chunk_bytes=6000, rate_bytes_per_s=60_000))
        assert until(lambda: len(sent(stub, fid)) == 10)
        assert 0.8 < time.monotonic() - begun < 2


def test_a_chunk_the_broker_does_not_take_is_not_lost(box):
    (fid,) = box.seal(clip_mp4=noise(300_000))
    refusals = []

    def refuse_once(topic):
        if topic.rsplit("/", 1)[1].isdigit() and not refusals:
            refusals.append(topic)
            return 0x97
        return 0

    with StubBroker(acks=refuse_once) as stub, Running(box.transfers(stub.port)):
        assert until(offered(stub, fid))
        answered(stub, fid, need(fid, [[0, 300_000]]))
        assert until(lambda: any(topic.endswith("done") for topic, _, _ in stub.published))
        content = b"".join(piece for _, piece in sorted(sent(stub, fid).items()))
        assert content == box.contents[fid]
    assert len(refusals) == 1


def test_the_receive_maximum_holds_for_chunks_too(box):
    (fid,) = box.seal(clip_mp4=noise(600_000))
    with StubBroker(receive_maximum=2) as stub, Running(box.transfers(stub.port)):
        assert until(offered(stub, fid))
        answered(stub, fid, need(fid, [[0, 600_000]], max_chunk_bytes=4096))
        assert until(lambda: any(topic.endswith("done") for topic, _, _ in stub.published))
    assert stub.most_unacked <= 2


def test_a_broker_that_swallows_chunks_is_left_and_smaller_ones_tried(box):
    (fid,) = box.seal(clip_mp4=noise(300_000))
    with (
        StubBroker(acks=lambda topic: None if topic.rsplit("/", 1)[1].isdigit() else 0) as stub,
        Running(box.transfers(stub.port, ack_timeout_s=0.2, receipt_timeout_s=30)) as running,
    ):
        for connection in (1, 2, 3):
            assert until(
                lambda wanted=connection: (
                    sum(t.endswith("offer") for t, _, _ in stub.published) == wanted
                )
            )
            answered(stub, fid, need(fid, [[0, 300_000]]))
        assert until(lambda: stub.connects >= 4)
        assert running.worker.status().chunk_bytes == 4096
        assert box.state(fid) == "waiting"


def test_an_offer_larger_than_the_broker_takes_is_told(box):
    large_manifest = MANIFEST | {"payload": "A" * 4000}
    (fid,) = box.seal(clip_mp4=noise(10))
    box.store.write(
        lambda c: c.execute("UPDATE transfer SET manifest = ?", (json.dumps(large_manifest),))
    )
    with StubBroker(max_packet=2000) as stub, Running(box.transfers(stub.port)):
        assert until(lambda: box.state(fid) == "refused")
    assert "broker takes 2000" in box.reason(fid)


def test_any_bytes_on_its_topics_change_nothing(box):
    (fid,) = box.seal(clip_mp4=noise(1000))
    with (
        StubBroker() as stub,
        Running(box.transfers(stub.port, receipt_timeout_s=30)) as running,
    ):
        assert until(offered(stub, fid))
        count = [0]
        json_values = st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["sv", "fid", "ranges", "sig"]), inner)
            ),
            max_leaves=8,
        )
        topics = st.sampled_from(
            [
                TOPICS.file(fid, "need"),
                TOPICS.file(fid, "receipt"),
                TOPICS.file("x", "need"),
                TOPICS.file("", "receipt"),
                TOPICS.file(fid, "0"),
                "other/topic",
                "$SYS/broker",
            ]
        )

        @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
        @given(
            topic=topics,
            payload=st.binary(max_size=100) | json_values.map(lambda v: json.dumps(v).encode()),
        )
        def send(topic, payload):
            stub.publish(topic, payload)
            count[0] += not topic.endswith("/0")

        send()
        assert until(lambda: running.worker.status().bad_messages == count[0])
        assert running.worker.status().link.sessions == 1
        assert box.state(fid) == "waiting"
        answered(stub, fid, need(fid, [[0, 1000]]))
        assert until(lambda: sent(stub, fid) == {0: box.contents[fid]})


def test_a_full_store_delays_the_receipt_and_the_refusal_but_ends_nothing(box):
    (fid,) = box.seal(clip_mp4=noise(1000))
    (gone,) = box.seal(clip_mp4=noise(1000, seed=2))
    box.path(gone).unlink()
    note, times = box.note, []

    def full_twice(connection, kind, subject, detail):
        times.append(kind)
        if len(times) <= 2:
            raise OutboxFull("store: database or disk is full")
        note(connection, kind, subject, detail)

    box.ledger._custody = full_twice
    with StubBroker() as stub, Running(box.transfers(stub.port)):
        assert until(offered(stub, fid))
        offer = json.loads(next(p for t, p, _ in stub.published if t.endswith("offer")))
        receipt = json.dumps(file_receipt(offer)).encode()
        assert until(lambda: times == ["file.missing"])
        stub.publish(TOPICS.file(fid, "receipt"), receipt)
        assert until(lambda: times[:2] == ["file.missing", "file.receipted"])
        assert box.state(fid) == "waiting"
        stub.publish(TOPICS.file(fid, "receipt"), receipt)
        assert until(lambda: box.state(fid) == "receipted")
        assert until(lambda: box.state(gone) == "refused")
