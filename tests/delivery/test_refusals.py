"""What the centre refuses stays: for a while, until it has room, or until a person says so."""

import json
import os
import resource

import pytest

from agent.core.errors import MalformedMessage
from tests.delivery.box import TOPICS, Box, noise
from tests.delivery.centre import Centre, Running, until
from tests.scenarios.field import Field

pytestmark = pytest.mark.broker


@pytest.fixture
def box(store, tmp_path):
    return Box(store, tmp_path)


def told(box):
    bodies = [json.loads(row.payload)["body"] for row in box.outbox.take(100)]
    return [body["state"] for body in bodies if "state" in body]


def test_refused_for_good_is_not_offered_again_until_a_person_says_so(embedded, box):
    (fid,) = box.seal(clip_mp4=noise(1000))
    centre = Centre(embedded.port, TOPICS)
    answer = centre.need(fid, [], refused="does not stand in its manifest", never=True)
    centre.answer = lambda fid: centre.send(TOPICS.file(fid, "need"), answer)
    with Running(box.transfers(embedded.port, refused_retry_s=1.0)) as running:
        assert until(lambda: box.state(fid) == "refused")
        turns = running.turns
        assert until(lambda: running.turns > turns + 10)
        assert len([topic for topic, _ in centre.seen if topic.endswith("offer")]) == 1
        assert told(box) == ["refused_for_good"]
        assert box.path(fid).read_bytes() == box.contents[fid]
        del centre.answer
        box.ledger.retry(fid, "A. Weber")
        assert until(box.all_receipted)
        assert [kind for kind, _ in box.custody[:2]] == ["file.refused", "file.retried"]
        with pytest.raises(MalformedMessage, match="receipted; allowed: one that is refused"):
            box.ledger.retry(fid, "A. Weber")
    centre.stop()


def test_the_same_refusal_again_and_again_is_told_once(embedded, box):
    (fid,) = box.seal(clip_mp4=noise(1000))
    centre = Centre(embedded.port, TOPICS)
    answer = centre.need(fid, [], refused="not now")
    centre.answer = lambda fid: centre.send(TOPICS.file(fid, "need"), answer)
    with Running(box.transfers(embedded.port, refused_retry_s=1.0)):
        offers = lambda: len([topic for topic, _ in centre.seen if topic.endswith("offer")])  # noqa: E731
        assert until(lambda: offers() == 3)
        assert told(box) == ["refused"]
        assert box.custody == [("file.refused", fid)]
    centre.stop()


def test_a_full_centre_is_told_once_small_files_go_on_and_all_comes_later(embedded, box):
    large = [box.seal(clip_mp4=noise(300_000 + number))[0] for number in range(12)]
    centre = Centre(embedded.port, TOPICS)
    answer, full = centre.answer, {"refused": "full: 9 bytes are free", "full": True}

    def no_room(fid):
        if centre.offers[fid]["size_bytes"] < 1000:
            answer(fid)
            return
        need = centre.need(fid, [], **full, retry_after_s=1)
        centre.send(TOPICS.file(fid, "need"), need)

    centre.answer = no_room
    with Running(box.transfers(embedded.port)) as running:
        assert until(lambda: running.worker.status().is_centre_full)
        (small,) = box.seal(path_json=noise(100))
        assert until(lambda: box.state(small) == "receipted")
        offers = [topic for topic, _ in centre.seen if topic.endswith("offer")]
        assert len(offers) <= 30, "files do not knock one after the other"
        assert {box.state(fid) for fid in large} == {"waiting"}
        assert told(box) == ["full"]
        del centre.answer
        assert until(box.all_receipted, 20)
        assert until(lambda: not running.worker.status().is_centre_full)
    assert told(box) == ["full", "delivering"]
    centre.stop()


def test_a_receiver_whose_disk_takes_no_more_gets_the_file_when_it_does(embedded, store, tmp_path):
    field = Field(tmp_path, store, embedded.port)
    fids = field.seal(clip_mp4=os.urandom(3_000_000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with field.centre(full_retry_s=1) as centre, field.transfers() as running:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
        try:
            assert until(lambda: running.worker.status().is_centre_full)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert centre.receipts() == []
        assert until(lambda: field.states() == ["receipted"], 20)
        assert centre.stored(fids[0]) == field.content(fids[0])


@pytest.mark.parametrize("harm", ["missing", "truncated", "altered"])
def test_a_clip_harmed_by_hand_is_told_to_the_centre_and_holds_up_nothing(
    harm, embedded, store, tmp_path
):
    field = Field(tmp_path, store, embedded.port)
    (gone,) = field.seal(clip_mp4=os.urandom(200_000))
    (good,) = field.seal(clip_mp4=os.urandom(300_000))
    path, content = field.path(gone), field.content(gone)
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] + (b"" if harm == "truncated" else bytes([content[-1] ^ 1])))
    with field.centre() as centre, field.uplink(), field.transfers(refused_retry_s=1.0):
        assert until(lambda: field.state(good) == "receipted")
        assert until(
            lambda: [(row["why"], row["name"]) for row in centre.lost()] == [(harm, "clip.mp4")]
        )
        assert field.state(gone) == "refused"
        assert field.custody_kinds().count(f"file.{harm}") == 1
        path.write_bytes(content)
        assert until(lambda: field.state(gone) == "receipted")
        assert until(lambda: centre.lost() == [])
        assert centre.stored(gone) == content
