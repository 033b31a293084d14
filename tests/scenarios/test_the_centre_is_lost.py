"""The centre's disk dies, or another centre takes its place: what is still here goes again."""

import os
import shutil

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from agent.evidence.verify import verify
from firmware_sim.gate import Gate
from tests.delivery.centre import until
from tests.evidence.handover import DEVICE, SITE
from tests.scenarios.field import Field

pytestmark = pytest.mark.broker


@pytest.fixture
def field(embedded, store, tmp_path):
    made = Field(tmp_path, store, embedded.port)
    made.broker = embedded
    return made


def all_receipted(field):
    return set(field.states()) == {"receipted"}


def delivered(field, count=2):
    """Have clips delivered; gives their fids."""
    fids = [field.seal(clip_mp4=os.urandom(150_000))[0] for _ in range(count)]
    with field.centre(), field.uplink(), field.transfers():
        assert until(lambda: all_receipted(field))
        assert until(lambda: known_store(field))
    return fids


def known_store(field):
    query = "SELECT value FROM meta WHERE key = 'centre_store'"
    with field.store.reading() as connection:
        row = connection.execute(query).fetchone()
    return row and row[0]


def past_receipts(field):
    with field.store.reading() as connection:
        return [row[0] for row in connection.execute("SELECT fid FROM past_receipt ORDER BY fid")]


def test_after_the_centres_disk_died_what_is_here_goes_again_and_the_rest_is_told(field):
    here, gone = delivered(field)
    field.path(gone).unlink()
    field.wipe_centre()
    with field.centre() as centre, field.uplink() as uplink:
        assert until(lambda: field.state(here) == "waiting")
        assert sorted(field.clip_states()) == ["receipted", "sealed"]
        with field.transfers():
            assert until(lambda: field.state(here) == "receipted")
        assert until(lambda: [row["why"] for row in centre.lost()] == ["store_lost"])
        assert centre.stored(here) == field.content(here)
        assert until(lambda: len(centre.contents("events")) == 2), "events are told again"
        clips = {row["clip_id"] for row in centre.contents("events")}
        assert clips == {field.ledger.find(fid).clip_id for fid in (here, gone)}
        assert past_receipts(field) == [here], "the old receipt is still evidence"
        assert field.custody_kinds().count("centre.store_lost") == 1
        assert uplink.wants.ignored == 0
    with field.centre(), field.uplink(), field.transfers():  # the same store: nothing more
        assert until(lambda: sum(field.outbox.depths().values()) == 0)
        assert field.custody_kinds().count("centre.store_lost") == 1
        assert all_receipted(field)


@pytest.mark.parametrize("what", ["index", "files"])
def test_a_centre_that_lost_half_of_its_store_signs_for_no_more_than_it_has(what, field):
    fids = delivered(field)
    if what == "index":
        for path in field.centre_dir.glob("receiver.db*"):
            path.unlink()
    else:
        shutil.rmtree(field.centre_dir / SITE)
    with field.centre() as centre, field.uplink(), field.transfers():
        assert until(lambda: field.custody_kinds().count("centre.store_lost") == 1)
        assert until(lambda: all_receipted(field))
        assert [centre.stored(fid) for fid in fids] == [field.content(fid) for fid in fids]
        sent = sum(len(field.content(fid)) for fid in fids)
        folder = centre.folder(fids[0])
    assert verify(folder, field.key.public, field.centre_key.public).ok
    assert sent == 300_000


def test_an_old_word_on_the_store_is_no_reason_to_send_everything_again(field):
    delivered(field, 1)
    with field.centre(), field.uplink():
        first = retained(field)
    field.wipe_centre()
    with field.centre(), field.uplink() as uplink, field.transfers():
        assert until(lambda: field.custody_kinds().count("centre.store_lost") == 1)
        assert until(lambda: all_receipted(field))
        now = known_store(field)
        uplink.wants.hear(f"outpost/1/{SITE}/{DEVICE}/want/store", first)
        assert until(lambda: uplink.wants.ignored == 1)
    assert known_store(field) == now
    assert all_receipted(field)


def retained(field):
    """Give the word on the store as the broker keeps it for a client that comes later."""
    found = []
    client = Client(CallbackAPIVersion.VERSION2, "late", protocol=MQTTProtocolVersion.MQTTv5)
    client.on_connect = lambda *_: client.subscribe(f"outpost/1/{SITE}/{DEVICE}/want/+", qos=1)
    client.on_message = lambda _client, _userdata, message: found.append(message.payload)
    client.connect("127.0.0.1", field.port)
    client.loop_start()
    assert until(lambda: found)
    client.disconnect()
    client.loop_stop()
    client.on_connect = client.on_message = None
    return found[0]


def test_receiver_restarted_from_an_empty_disk_in_the_middle_of_a_file(field):
    """The device restarts too: each goes on from what the other one says."""
    (fid,) = field.seal(clip_mp4=os.urandom(1_500_000))
    with field.centre(rate_bytes_per_s=1_000_000) as centre:
        with field.uplink(), field.transfers():
            assert until(lambda: centre.received_bytes() > 300_000)
        field.restart()
        with field.uplink(), field.transfers():
            assert until(lambda: centre.received_bytes() > 700_000)
            assert field.state(fid) == "waiting"
    field.wipe_centre()
    with field.uplink(), field.transfers(), field.centre() as centre:
        assert until(lambda: all_receipted(field), 20)
        assert centre.stored(fid) == field.content(fid)


def test_both_restart_in_the_middle_of_a_file_the_centre_from_an_empty_disk(field):
    (fid,) = field.seal(clip_mp4=os.urandom(1_000_000))
    with field.centre(rate_bytes_per_s=1_000_000) as centre, field.uplink(), field.transfers():
        assert until(lambda: centre.received_bytes() > 300_000)
    field.wipe_centre()
    field.restart()
    with field.centre() as centre, field.uplink(), field.transfers() as link:
        assert until(lambda: all_receipted(field), 20)
        assert centre.stored(fid) == field.content(fid)
        assert link.worker.status().sent_bytes == 1_000_000, "all of it, and nothing twice"


@pytest.mark.crash
@pytest.mark.parametrize("topic", [r"/file/[0-9a-f]+/[1-9][0-9]*$", r"/done$", r"/receipt$"])
def test_a_broker_that_forgets_its_sessions(topic, field):
    """Restarted without its memory: in the middle of a file, before done, before its receipt."""
    (fid,) = field.seal(clip_mp4=os.urandom(600_000))
    gate = Gate(field.port).start()
    mark = gate.stop_at(topic)
    try:
        with field.centre() as centre, field.uplink(), field.transfers(port=gate.port):
            assert mark.reached.wait(10)
            field.broker.kill()
            gate.cut()
            gate.let_go()
            field.broker.restart()
            assert until(lambda: all_receipted(field), 30)
            assert centre.stored(fid) == field.content(fid)
    finally:
        gate.close()
