"""Everything a device hears, spoiled: nothing is let go of that the pinned key did not sign for."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.model import Lane, Message
from agent.evidence.receipt import sign_file_receipt, sign_row_receipt
from tests.delivery.test_outbox import EVENT
from tests.evidence.handover import DEVICE
from tests.fuzz.hostile import NAMES, RANGES, RUBBISH, VALUES, examples, is_harmless, spoiled
from tests.fuzz.site import TOPICS, Site, is_stored, message, sha256
from tests.receiver.rig import fid

CONTENT = b"video" * 20_000
MOST_SENT = 40  # messages in answer to one


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.close()


def rounds(site, first=(), most=60):
    """Let both sides talk until the device has nothing more to say."""
    messages = list(first)
    for _ in range(most):
        answers = site.centre.hear(*messages)
        messages = site.box.run.hear(*answers)
        if not messages and not answers:
            site.clock.advance(6)


def is_kept(site, number):
    path, content, _, _ = site.box.files[number]
    return site.box.state(number) != "receipted" and sha256(path.read_bytes()) == sha256(content)


def need(number, **changes):
    document = {"sv": 1, "fid": number, "ranges": [[0, 1000]], "max_chunk_bytes": 4096}
    return document | {"rate_bytes_per_s": 0} | changes


def receipt(site, number, key=None, **changes):
    _, content, _, _ = site.box.files[number]
    fields = {
        "fid": number,
        "device": DEVICE,
        "sha256": sha256(content),
        "size_bytes": len(content),
        "stored_utc_ms": 1,
        "copies": 1,
        "retention_until_utc_ms": 1,
        "receiver": "centre-1",
    }
    return sign_file_receipt(fields | changes, key or site.centre.key)


@given(data=st.data())
@examples(60)
def test_answers_about_a_file_with_one_thing_wrong(site, data):
    if site.box.run is None:
        site.box.seal(clip_mp4=CONTENT)
        site.box.start()
    (number,) = site.box.files
    site.clock.advance(301)
    site.box.run.step()
    kind = data.draw(st.sampled_from(("need", "receipt")))
    good = need(number) if kind == "need" else receipt(site, number)
    content = data.draw(spoiled(good))
    if kind == "receipt" and is_harmless("file_receipt", content, good):
        return
    said = site.box.run.hear((TOPICS.file(number, kind), content))
    assert len(said) < MOST_SENT
    assert is_kept(site, number)


@given(
    ranges=st.sampled_from(RANGES) | st.lists(st.lists(st.integers(), max_size=3), max_size=5),
    value=st.sampled_from(VALUES),
    field=st.sampled_from(("max_chunk_bytes", "rate_bytes_per_s")),
)
@examples(60)
def test_needs_for_ranges_that_do_not_exist(site, ranges, value, field):
    if site.box.run is None:
        site.box.seal(clip_mp4=CONTENT)
        site.box.start()
    (number,) = site.box.files
    site.clock.advance(301)
    site.box.run.step()
    for document in (need(number, ranges=ranges), need(number, **{field: value})):
        content = json.dumps(document).encode()
        for topic, sent in site.box.run.hear((TOPICS.file(number, "need"), content)):
            part = topic.rsplit("/", 1)[1]
            if part.isdigit():  # what was asked for lies in the file, and is what stands there
                assert CONTENT[int(part) : int(part) + len(sent)] == sent
                assert sent
    assert is_kept(site, number)


OURS = st.sampled_from(("receipt", "need", "offer", "done", "0", "x", ""))


@given(name=st.sampled_from(NAMES) | st.just("f" * 32), part=OURS, content=RUBBISH)
@examples(60)
def test_rubbish_on_every_topic_of_the_file_link(site, name, part, content):
    if site.box.run is None:
        site.box.seal(clip_mp4=CONTENT)
        site.box.start()
    name = name[:60_000].encode(errors="ignore").decode()
    for topic in (TOPICS.file(name, part), name, TOPICS.receipt, f"outpost/1/x/cam-2/file/{part}"):
        assert len(site.box.run.hear((topic, content))) < MOST_SENT
    assert all(is_kept(site, number) for number in site.box.files)


def test_a_receipt_for_another_file_of_another_device_or_by_another_key_lets_go_of_nothing(site):
    one, two = site.box.seal(clip_mp4=CONTENT, snapshot_jpg=b"picture" * 9)
    site.box.start()
    foreign = site.box.device.key
    for number, wrong in (
        (one, receipt(site, two)),
        (one, receipt(site, one, device="cam-2")),
        (one, receipt(site, one, sha256="0" * 64)),
        (one, receipt(site, one, size_bytes=1)),
        (one, receipt(site, one, key=foreign)),
        (fid("nobody"), receipt(site, one, fid=fid("nobody"))),
    ):
        site.box.run.hear((TOPICS.file(number, "receipt"), json.dumps(wrong).encode()))
        assert is_kept(site, one)
        assert is_kept(site, two)
    assert site.box.run.worker.status().bad_messages >= 6


def test_after_all_of_that_the_file_arrives(site):
    (number,) = site.box.seal(clip_mp4=CONTENT)
    site.box.start()
    site.box.run.step()
    for value in VALUES:
        text = json.dumps(need(number, ranges=value)).encode()
        site.box.run.hear((TOPICS.file(number, "need"), text))
        text = json.dumps(receipt(site, number) | {"sig": value}).encode()
        site.box.run.hear((TOPICS.file(number, "receipt"), text))
    assert is_kept(site, number)
    for _ in range(100):
        if site.box.state(number) == "receipted":
            break
        site.clock.advance(301)
        rounds(site, site.box.run.step(), most=5)
    assert site.box.state(number) == "receipted"
    assert is_stored(site.centre, site.box.files[number])


@given(data=st.data())
@examples(80)
def test_receipts_for_messages_with_one_thing_wrong(site, data):
    if site.box.run is None:
        site.box.start_uplink()
    alarm = Message(Lane.ALARM, "event/zone_enter", EVENT, needs_receipt=True)
    message_id = site.box.outbox.put(alarm)
    site.box.run.step()
    fields = {"device": DEVICE, "ids": [message_id], "stored_utc_ms": 1, "receiver": "centre-1"}
    good = sign_row_receipt(fields, site.centre.key)
    wrong = data.draw(spoiled(good) | RUBBISH)
    if is_harmless("row_receipt", wrong, good):
        wrong = b""
    before = site.box.run.worker.status().bad_receipts
    waiting = site.box.outbox.depths()["alarm"]
    site.box.run.hear((TOPICS.receipt, wrong))
    assert site.box.outbox.depths()["alarm"] == waiting
    assert site.box.run.worker.status().bad_receipts == before + 1
    site.box.run.hear((TOPICS.receipt, json.dumps(good).encode()))
    assert site.box.outbox.depths()["alarm"] == waiting - 1


def test_a_receipt_of_another_device_or_key_lets_go_of_no_message(site):
    site.box.start_uplink()
    message_id = site.box.outbox.put(
        Message(Lane.ALARM, "event/zone_enter", EVENT, needs_receipt=True)
    )
    fields = {"device": DEVICE, "ids": [message_id], "stored_utc_ms": 1, "receiver": "centre-1"}
    wrong = (
        sign_row_receipt(fields | {"device": "cam-2"}, site.centre.key),
        sign_row_receipt(fields, site.box.device.key),
        sign_row_receipt(fields | {"ids": ["f" * 32]}, site.centre.key),
    )
    for document in wrong:
        site.box.run.hear(message("receipt", document))
        assert site.box.outbox.depths()["alarm"] == 1
    site.box.run.hear(message("receipt", sign_row_receipt(fields, site.centre.key)))
    assert site.box.outbox.depths()["alarm"] == 0
