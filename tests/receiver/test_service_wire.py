"""The receiver on a wire of the test's own: after any message the next good one gets a receipt."""

import json
import sqlite3
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core.errors import StorageError
from agent.evidence.receipt import check_row_receipt
from agent.receiver.index import contents
from agent.receiver.rejects import MOST_WAITING
from agent.receiver.service import UP, Receiver
from tests.evidence.handover import SITE
from tests.receiver.rig import Device, Rig, Wire, done, fid, payload


@pytest.fixture
def rig(tmp_path):
    rig = Rig(tmp_path)
    yield rig
    rig.close()


def signed_ids(rig, device="cam-1"):
    receipts = rig.row_receipts(device)
    return [i for one in receipts for i in check_row_receipt(one, rig.key.public, device)]


def is_alive(rig, number):
    message = rig.device.envelope(number)
    rig.send("event/zone_enter", message)
    return message["id"] in signed_ids(rig)


def test_it_listens_to_devices_and_not_to_row_receipts(rig):
    rig.quiet()
    root = f"outpost/1/{SITE}/+"
    assert f"{root}/event/+" in rig.wire.subscribed
    assert f"{root}/file/+/+" in rig.wire.subscribed
    assert not any("receipt" in topic or "#" in topic for topic in rig.wire.subscribed)


def test_event_is_stored_and_signed_for_again_whenever_it_comes(rig):
    message = rig.device.envelope(1)
    for times in range(1, 4):
        rig.send("event/zone_enter", message)
        assert signed_ids(rig) == [message["id"]] * times
    assert len(contents(rig.store_dir)["events"]) == 1


def test_a_broker_that_acknowledges_nothing_does_not_end_the_answers(tmp_path):
    rig = Rig(tmp_path, ack_timeout_s=0.5)
    rig.wire.has_acks = False
    for number in range(1, Wire.receive_maximum + 5):  # more than the window holds
        rig.send("event/zone_enter", rig.device.envelope(number))
        rig.quiet()
    rig.wire.has_acks = True
    deadline = time.monotonic() + 20
    while not rig.wire.closed and time.monotonic() < deadline:
        time.sleep(0.05)
    assert rig.wire.closed, "it waited on the old connection"
    assert is_alive(rig, 900)
    rig.close()


def test_telemetry_is_stored_without_a_receipt(rig):
    body = {"state": "streaming", "since_utc_ms": 1, "detail": ""}
    rig.send("state/west", rig.device.envelope(1, "state/west", body, lane="state"))
    assert signed_ids(rig) == []
    assert contents(rig.store_dir)["devices"][0]["messages"] == 1


@pytest.mark.parametrize("kind", ["state/need", "state/receipt", "event/receipt"])
def test_device_may_use_our_words_as_names(rig, kind):
    body = {"state": "streaming", "since_utc_ms": 1, "detail": ""}
    body = body if kind.startswith("state") else None
    rig.send(kind, rig.device.envelope(1, kind, body))
    assert len(signed_ids(rig)) == 1


def test_unknown_device_gets_no_word_and_is_noted(rig, tmp_path):
    stranger = Device(tmp_path, "cam-9")
    files, signed = stranger.clip()
    rig.send("event/zone_enter", stranger.envelope(1), "cam-9")
    rig.send(f"file/{fid(1)}/offer", stranger.offer(files, signed), "cam-9")
    rig.send(f"file/{fid(1)}/0", b"x", "cam-9")
    rig.send("event/zone_enter", stranger.envelope(1), "../cam-1")
    assert len(rig.rejected()) == 4
    assert rig.wire.sent == []
    assert contents(rig.store_dir)["events"] == []
    stranger.register(rig.config.devices_dir)
    rig.send("event/zone_enter", stranger.envelope(1), "cam-9")
    assert len(signed_ids(rig, "cam-9")) == 1


def test_device_can_not_speak_for_another(rig, tmp_path):
    other = Device(tmp_path, "cam-2")
    other.register(rig.config.devices_dir)
    files, signed = other.clip()
    offer = other.offer(files, signed)
    rig.send("event/zone_enter", other.envelope(1), "cam-1")
    rig.send(f"file/{offer['fid']}/offer", offer, "cam-1")
    reasons = rig.rejected()
    assert any("envelope of 'cam-2' on a topic of 'cam-1'" in reason for reason in reasons)
    assert any("offer of 'cam-2' from 'cam-1'" in reason for reason in reasons)
    assert [topic for topic, _ in rig.wire.sent if "/want/" not in topic] == []


def test_transfer_ends_with_a_receipt_and_is_repeated_on_request(rig):
    files, signed = rig.device.clip()
    offer = rig.device.offer(files, signed)
    rig.transfer(offer, files["clip-1.mp4"])
    (receipt,) = rig.answers("receipt")
    rig.send(f"file/{offer['fid']}/done", done(offer))
    rig.send(f"file/{offer['fid']}/offer", offer)
    assert rig.answers("receipt") == [receipt] * 3
    place = rig.store_dir / SITE / "cam-1" / payload(signed)["clip_id"]
    assert (place / "clip-1.mp4").read_bytes() == files["clip-1.mp4"]
    assert json.loads((place / "receipt-clip-1.mp4.json").read_bytes()) == receipt


def test_refusals_reach_the_device_in_words_and_are_noted(rig):
    files, signed = rig.device.clip()
    offer = rig.device.offer(files, signed) | {"name": "clip-9.mp4"}
    rig.send(f"file/{offer['fid']}/offer", offer)
    (need,) = rig.answers("need")
    assert "'clip-9.mp4' does not stand so in its manifest" in need["refused"]
    assert need["fid"] == offer["fid"]
    assert any("clip-9.mp4" in reason for reason in rig.rejected())
    right = rig.device.offer(files, signed, number=fid("wrong bytes"))
    rig.transfer(right, b"wrong" * 2000)
    rig.transfer(right, bytes(len(files["clip-1.mp4"])))
    assert "leaf 0" in rig.answers("need")[-1]["refused"]
    assert rig.answers("receipt") == []


def test_names_that_are_paths_never_become_files(rig):
    files, signed = rig.device.clip()
    for name in ("../../x", "/tmp/x", "..", ".x", "a/b", "x\0", "x\n", "manifest.json"):
        offer = rig.device.offer(files, signed) | {"name": name}
        rig.send(f"file/{offer['fid']}/offer", offer)
    for number in ("..", "../" * 10 + "x" * 2, "." * 32, "A" * 32, "+" * 32):
        rig.send(f"file/{number}/0", b"x")
        rig.send(f"file/{number}/offer", rig.device.offer(files, signed))
    rig.quiet()
    assert not list(rig.store_dir.rglob("*.part"))
    assert [path.name for path in (rig.store_dir / SITE).iterdir()] == ["store-id"]
    assert is_alive(rig, 1)


def test_fractions_and_flags_for_numbers_are_refused(rig):
    files, signed = rig.device.clip()
    offer = rig.device.offer(files, signed)
    for value in (offer["size_bytes"] + 0.5, True, -1, 1 << 70, 1e300, None):
        rig.send(f"file/{offer['fid']}/offer", offer | {"size_bytes": value})
        rig.send(f"file/{offer['fid']}/done", done(offer) | {"size_bytes": value})
    assert rig.answers("need") == []
    assert len(rig.rejected()) == 12
    assert is_alive(rig, 1)


PARTS = (
    *("birth", "death", "beat", "state/west", "event/zone_enter", "backfill/beat", "receipt"),
    *(
        f"file/{fid(0)}/{part}"
        for part in ("offer", "done", "need", "receipt", "0", "-1", "7" * 40)
    ),
    *("file/x/offer", "file", "file/x", f"file/{fid(0)}/0/0", "", "x", "²"),
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=True)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(
    part=st.sampled_from(PARTS),
    content=st.binary(max_size=60) | JSON.map(json.dumps).map(str.encode),
)
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_on_any_topic_stop_nothing(rig, part, content):
    rig.send(part, content)
    assert rig.failure is None  # and again when the rig has dealt with all of it


def test_after_all_of_that_it_is_alive(rig):
    for part in PARTS:
        for content in (
            b"",
            b"{}",
            b"[]",
            b"null",
            b"\xff",
            b"[" * 100_000,
            b"1e999",
            b"x" * 300_000,
        ):
            rig.send(part, content)
    assert is_alive(rig, 1)
    assert rig.failure is None


def mutated(data, document):
    """Change one value somewhere in a document that was good."""
    copy = json.loads(json.dumps(document))
    target, key = copy, data.draw(st.sampled_from(sorted(copy)))
    while isinstance(target[key], dict) and target[key] and data.draw(st.booleans()):
        target, key = target[key], data.draw(st.sampled_from(sorted(target[key])))
    if data.draw(st.booleans()):
        target[key] = data.draw(JSON)
    else:
        del target[key]
    return copy


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_one_wrong_value_in_a_good_message_stops_nothing(rig, data):
    files, signed = rig.device.clip(contents={"clip-1.mp4": b"v"})
    offer = rig.device.offer(files, signed)
    part, good = data.draw(
        st.sampled_from(
            [
                ("event/zone_enter", rig.device.envelope(7)),
                (f"file/{offer['fid']}/offer", offer),
                (f"file/{offer['fid']}/done", done(offer)),
                ("death", {"sv": 1, "device": "cam-1", "boot": 1, "kind": "death"}),
            ]
        )
    )
    rig.send(part, json.dumps(mutated(data, good)).encode())
    assert rig.failure is None  # and again when the rig has dealt with all of it


def test_flood_of_rubbish_is_noted_in_bounds(rig):
    for _ in range(2000):
        rig.send("event/zone_enter", b"{")
    assert is_alive(rig, 1)
    assert 0 < len(rig.rejected()) <= 100  # of what the index shows
    assert rig.turns > 0
    assert MOST_WAITING < 2000


def test_one_bad_message_does_not_keep_good_ones_from_their_receipt(rig):
    good = [rig.device.envelope(number) for number in range(1, 6)]
    for message in good:
        rig.send("event/zone_enter", message)
        rig.send("event/zone_enter", message | {"seq": 1 << 70})
    assert sorted(set(signed_ids(rig))) == sorted(message["id"] for message in good)


def test_receipts_are_sent_only_after_the_commit(rig):
    """While another program holds the database nothing is committed, so nothing is signed for."""
    lock = sqlite3.connect(rig.store.path, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    rig.send("event/zone_enter", rig.device.envelope(1))
    deadline_s = time.monotonic() + 8  # the store gives up after 5 s of a locked database
    while not rig.wire.inbox.empty() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    time.sleep(0.2)
    assert rig.wire.sent == []
    lock.execute("ROLLBACK")
    lock.close()
    assert is_alive(rig, 1)


def test_more_answers_than_the_broker_takes_at_once_all_go(rig):
    clips = [rig.device.clip(seed) for seed in range(3)]
    for number in range(60):
        files, signed = clips[number % 3]
        offer = rig.device.offer(files, signed, number=fid(number))
        rig.send(f"file/{offer['fid']}/offer", offer)
    assert len(rig.answers("need")) == 60


def test_lost_connection_is_made_again_and_answers_that_were_not_sent_go_then(rig):
    rig.quiet()
    rig.lose()
    assert is_alive(rig, 1)
    assert rig.wire.closed >= 1
    assert len(rig.wire.subscribed) == 2 * len(UP)


def test_store_that_cannot_be_read_is_told_as_such(tmp_path):
    rig = Rig(tmp_path)
    rig.close()
    (rig.store_dir / "receiver.db").write_bytes(b"no database" * 1000)
    again = Receiver(rig.config, Wire, rig.store, rig.key, rig.clock)
    with pytest.raises(StorageError, match=r"receiver\.db"):
        again.run(rig._stop, lambda: None)


def test_row_receipts_fit_their_schema_at_their_largest(rig):
    for number in range(1, 1200):
        rig.send("event/zone_enter", rig.device.envelope(number))
    assert len(set(signed_ids(rig))) == 1199
