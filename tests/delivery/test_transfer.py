"""Files reach the centre byte for byte over real brokers; only a receipt lets go of them."""

import hashlib
import json
import time

import pytest

from agent.core import wire
from agent.delivery.window import MOST_PACED_BYTES
from firmware_sim import broker as brokers
from tests.delivery.box import MANIFEST, TOPICS, Box, noise
from tests.delivery.centre import WRONG, Centre, Running, file_receipt, until


@pytest.fixture
def box(store, tmp_path):
    return Box(store, tmp_path)


@pytest.mark.broker
def test_files_arrive_byte_for_byte_and_the_clip_is_receipted(broker, box):
    fids = box.seal(clip_mp4=noise(700_000), snapshot_jpg=noise(30_000), empty_json=b"")
    centre = Centre(broker.port, TOPICS)
    with Running(box.transfers(broker.port)) as running:
        assert until(box.all_receipted)
        assert until(lambda: running.worker.status().open == 0)
        status = running.worker.status()
    for fid in fids:
        assert centre.content(fid) == box.contents[fid]
        assert wire.check("offer", centre.offers[fid])["manifest"] == MANIFEST
    assert box.clip_states() == ["receipted"]
    assert sorted(kind for kind, _ in box.custody) == ["clip.receipted"] + ["file.receipted"] * 3
    assert (status.receipted, status.sent_bytes, status.refused) == (3, 730_000, 0)
    assert status.window_bytes <= MOST_PACED_BYTES
    receipt = json.loads(
        box.store.write(
            lambda c: c.execute("SELECT receipt FROM transfer WHERE fid = ?", fids[:1]).fetchone()
        )[0]
    )
    assert receipt["sha256"] == hashlib.sha256(box.contents[fids[0]]).hexdigest()
    centre.stop()


@pytest.mark.broker
def test_every_chunk_holds_the_bytes_of_its_offset_and_no_more_than_was_asked(embedded, box):
    (fid,) = box.seal(clip_mp4=noise(500_001))
    centre = Centre(embedded.port, TOPICS)
    centre.max_chunk_bytes = 10_000
    with Running(box.transfers(embedded.port)):
        assert until(box.all_receipted)
    assert max(size for _, size in centre.chunks[fid]) == 10_000
    for offset, payload in centre.files[fid].items():
        assert payload == box.contents[fid][offset : offset + len(payload)]
    centre.stop()


@pytest.mark.broker
def test_small_files_go_before_large_and_old_before_new(embedded, box):
    (old_clip,) = box.seal(clip_mp4=noise(900_000))
    (new_clip,) = box.seal(clip_mp4=noise(600_000))
    snapshot, path = box.seal(snapshot_jpg=noise(9000), path_json=noise(100))
    centre = Centre(embedded.port, TOPICS)
    with Running(box.transfers(embedded.port)):
        assert until(box.all_receipted)
    assert list(centre.offers) == [path, snapshot, old_clip, new_clip]
    centre.stop()


@pytest.mark.broker
@pytest.mark.crash
def test_killed_brokers_and_new_workers_resume_where_the_centre_stands(broker, box):
    (fid,) = box.seal(clip_mp4=noise(1_500_000))
    centre = Centre(broker.port, TOPICS)
    centre.max_chunk_bytes = 16_384
    centre.rate = 3_000_000
    for target in (400_000, 800_000, 1_200_000):
        with Running(box.transfers(broker.port)):
            assert until(
                lambda wanted=target: sum(map(len, centre.files.get(fid, {}).values())) > wanted
            )
            if target == 800_000:
                broker.kill()
                broker.restart()
    with Running(box.transfers(broker.port)):
        assert until(box.all_receipted)
    assert centre.content(fid) == box.contents[fid]
    resent = sum(size for _, size in centre.chunks[fid]) - 1_500_000
    assert resent <= 4 * (MOST_PACED_BYTES + 16_384)
    centre.stop()


@pytest.mark.broker
def test_what_the_centre_lacks_after_done_is_sent_again(embedded, box):
    (fid,) = box.seal(clip_mp4=noise(400_000))
    centre = Centre(embedded.port, TOPICS)
    take = centre.on_file
    dropped = []

    def drop_once(got, part, payload):
        if part.isdigit() and len(dropped) < 3 and int(part) not in dropped:
            dropped.append(int(part))
        else:
            take(got, part, payload)

    centre.on_file = drop_once
    with Running(box.transfers(embedded.port, receipt_timeout_s=5)):
        assert until(box.all_receipted)
    assert len(dropped) == 3
    assert centre.content(fid) == box.contents[fid]
    centre.stop()


@pytest.mark.broker
def test_no_answer_means_another_offer_ever_later(embedded, box):
    (fid,) = box.seal(clip_mp4=noise(1000))
    centre = Centre(embedded.port, TOPICS, takes_files=False)
    with Running(box.transfers(embedded.port, receipt_timeout_s=0.1)):
        time.sleep(1.7)
        offers = sum(topic == TOPICS.file(fid, "offer") for topic, _ in centre.seen)
        assert 3 <= offers <= 6
        centre.takes_files = True
        assert until(box.all_receipted)
    centre.stop()


@pytest.mark.broker
def test_a_file_nobody_answers_for_does_not_hold_up_the_others(embedded, box):
    fids = [box.seal(clip_mp4=noise(1000 + number))[0] for number in range(12)]
    centre = Centre(embedded.port, TOPICS)
    take = centre.on_file
    centre.on_file = lambda fid, part, payload: (
        None if fid in fids[:6] else take(fid, part, payload)
    )
    with Running(box.transfers(embedded.port, receipt_timeout_s=0.2)):
        assert until(lambda: all(box.state(fid) == "receipted" for fid in fids[6:]))
    assert {box.state(fid) for fid in fids[:6]} == {"waiting"}
    centre.stop()


@pytest.mark.broker
def test_with_nobody_listening_mosquitto_says_so_and_the_file_waits(mosquitto, box):
    (fid,) = box.seal(clip_mp4=noise(200_000))
    with Running(box.transfers(mosquitto.port)) as running:
        assert until(lambda: running.worker.status().open == 1)
        time.sleep(0.6)
        centre = Centre(mosquitto.port, TOPICS)
        assert until(box.all_receipted)
    assert centre.content(fid) == box.contents[fid]
    centre.stop()


@pytest.mark.broker
def test_a_small_maximum_packet_size_makes_small_chunks(mosquitto, box):
    mosquitto.stop()
    with brokers.start(
        "mosquitto", directory=box.folder / "small", extra="max_packet_size 3000"
    ) as small:
        (fid,) = box.seal(clip_mp4=noise(50_000))
        centre = Centre(small.port, TOPICS)
        with Running(box.transfers(small.port)):
            assert until(box.all_receipted)
        assert centre.content(fid) == box.contents[fid]
        assert max(size for _, size in centre.chunks[fid]) < 3000
        centre.stop()


@pytest.mark.broker
def test_a_receipt_by_another_key_or_for_something_else_changes_nothing(embedded, box):
    (fid,) = box.seal(clip_mp4=noise(1000))
    centre = Centre(embedded.port, TOPICS, takes_files=False)
    with Running(box.transfers(embedded.port)) as running:
        assert until(lambda: any("offer" in topic for topic, _ in centre.seen))
        offer = json.loads(next(p for topic, p in centre.seen if topic.endswith("offer")))
        wrong = [
            file_receipt(offer, sig=WRONG),
            file_receipt(offer, sha256="1" * 64),
            file_receipt(offer, size_bytes=1001),
            file_receipt(offer, fid="1" * 32),
            file_receipt(offer, device="cam-2"),
        ]
        for document in wrong:
            centre.send(TOPICS.file(fid, "receipt"), document)
        centre.send(TOPICS.file("1" * 32, "receipt"), file_receipt(offer, fid="1" * 32))
        assert until(lambda: running.worker.status().bad_messages == 6)
        assert box.state(fid) == "waiting"
        centre.send(TOPICS.file(fid, "receipt"), file_receipt(offer))
        assert until(box.all_receipted)
        centre.send(TOPICS.file(fid, "receipt"), file_receipt(offer))
        time.sleep(0.2)
        assert running.worker.status().receipted == 1
    assert [kind for kind, _ in box.custody] == ["file.receipted", "clip.receipted"]
    centre.stop()


@pytest.mark.broker
def test_a_refusal_is_kept_with_its_reason_told_and_tried_again_later(embedded, box):
    (fid,) = box.seal(clip_mp4=noise(1000))
    centre = Centre(embedded.port, TOPICS)
    centre.answer = lambda fid: centre.send(
        TOPICS.file(fid, "need"), centre.need(fid, [], refused="unknown device \ud800")
    )
    with Running(box.transfers(embedded.port, refused_retry_s=1.5)) as running:
        assert until(lambda: box.state(fid) == "refused")
        assert box.reason(fid) == "the centre refuses it: unknown device ?"
        assert box.path(fid).read_bytes() == box.contents[fid]
        assert until(lambda: running.worker.status().refused == 1)
        (row,) = box.outbox.take(10)
        body = json.loads(row.payload)["body"]
        assert row.topic == TOPICS.up("state/files")
        assert body["state"] == "refused"
        assert fid in body["detail"]
        del centre.answer
        assert until(box.all_receipted)
    centre.stop()


@pytest.mark.broker
@pytest.mark.parametrize("harm", ["altered", "cut"])
def test_a_file_changed_while_it_is_sent_is_not_called_done(harm, embedded, box):
    (fid,) = box.seal(clip_mp4=noise(400_000))
    centre = Centre(embedded.port, TOPICS)
    centre.rate = 400_000
    with Running(box.transfers(embedded.port)):
        assert until(lambda: len(centre.files.get(fid, ())) >= 2)
        with box.path(fid).open("r+b") as stream:
            if harm == "cut":
                stream.truncate(200_000)
            else:
                stream.seek(399_999)
                stream.write(b"\0")
        assert until(lambda: box.state(fid) == "refused")
    assert not any(topic == TOPICS.file(fid, "done") for topic, _ in centre.seen)
    centre.stop()


@pytest.mark.broker
@pytest.mark.parametrize("damage", [b'{"pay\xffload', b"not json", b"[]"])
def test_a_damaged_row_holds_up_nobody_and_is_mended_from_what_was_sealed(damage, embedded, box):
    harmed, other = box.seal(a_bin=noise(300), b_bin=noise(400))
    box.store.write(
        lambda connection: connection.execute(
            "UPDATE transfer SET manifest = CAST(? AS TEXT), event_ids = 'x' WHERE fid = ?",
            (damage, harmed),
        )
    )
    (box.path(harmed).parent / "manifest.json").write_text(json.dumps(MANIFEST))
    centre = Centre(embedded.port, TOPICS)
    with Running(box.transfers(embedded.port)):
        assert until(box.all_receipted)
    offers = [
        json.loads(said) for topic, said in centre.seen if topic == TOPICS.file(harmed, "offer")
    ]
    assert offers[0]["manifest"] == MANIFEST
    assert centre.files[other]
    centre.stop()


def test_a_damaged_row_without_its_manifest_is_still_read(box):
    (fid,) = box.seal(a_bin=b"12345")
    box.store.write(lambda connection: connection.execute("UPDATE transfer SET manifest = 'x'"))
    assert box.ledger.find(fid).manifest == {}
    assert box.ledger.find(fid).size_bytes == 5


def test_the_ledger_counts_what_waits(box):
    box.seal(a_bin=b"12345", b_bin=b"123")
    assert box.ledger.backlog() == (2, 8)
    assert box.ledger.find("f" * 32) is None
