"""Files by EMQX's file transfer: put together at the broker, and kept here until signed for."""

import json
import struct
import threading

import pytest

from agent.core import wire
from agent.core.errors import MalformedMessage
from firmware_sim.emqx_files import FileTransfer
from tests.delivery.box import TOPICS, Box, noise
from tests.delivery.centre import WRONG, Running, file_receipt, until
from tests.delivery.stub_broker import StubBroker


class Emqx(StubBroker):
    """A broker with file transfer; `holds` keeps back the answer to a fin."""

    def __init__(self, **limits):
        self.files = FileTransfer()
        self.holds = threading.Event()
        self.held = []
        super().__init__(**limits)

    def _published(self, body):
        size = struct.unpack("!H", body[:2])[0]
        topic = body[2 : 2 + size].decode()
        packet_id = struct.unpack("!H", body[2 + size : 4 + size])[0]
        payload = body[5 + size :]
        self.published.append((topic, payload, packet_id))
        code = self.files.publish(topic, payload)
        if "/fin/" in topic and self.holds.is_set():
            self.held.append((packet_id, code))
        else:
            self.puback(packet_id, code)

    def receipt(self, fid, sig=None):
        about = self.files.exported[fid].about["user_data"]
        document = file_receipt(about) if sig is None else file_receipt(about, sig=sig)
        self.publish(TOPICS.file(fid, "receipt"), json.dumps(document).encode())

    def count(self, fid, command):
        return self.files.commands.count((fid, command))


@pytest.fixture
def box(store, tmp_path):
    return Box(store, tmp_path)


def running(box, emqx, **changes):
    return Running(box.transfers(emqx.port, **({"file_form": "emqx"} | changes)))


def test_a_file_is_put_together_and_stays_until_the_receipt_comes(box):
    contents = {"clip_mp4": noise(300_000), "snapshot_jpg": noise(5000), "empty_json": b""}
    fids = box.seal(**contents)
    with Emqx() as emqx, running(box, emqx):
        assert until(lambda: set(emqx.files.exported) == set(fids))
        for fid, (name, content) in zip(fids, contents.items(), strict=True):
            found = emqx.files.exported[fid]
            assert found.content == content
            assert found.about["name"] == name.replace("_", ".")
            assert (found.about["size"], found.about["checksum"]) == (
                len(content),
                box.ledger.find(fid).sha256,
            )
            # Whoever reads the export can check it by our manifest, and sign.
            assert wire.check("offer", found.about["user_data"])["fid"] == fid
        assert {box.state(fid) for fid in fids} == {"waiting"}
        assert box.clip_states() == ["sealed"]
        for fid in fids:
            emqx.receipt(fid, sig=WRONG)
        for fid in fids:
            emqx.receipt(fid)
        assert until(box.all_receipted)
    assert box.clip_states() == ["receipted"]


def test_without_a_receipt_it_is_not_sent_again_and_again(box):
    (fid,) = box.seal(clip_mp4=noise(100_000))
    with Emqx() as emqx:
        with running(box, emqx, receipt_timeout_s=0.2) as worker:
            assert until(lambda: fid in emqx.files.exported)
            assert until(lambda: worker.worker.status().open == 0)
            later = box.seal(clip_mp4=noise(50_000, seed=2))[0]
            assert until(lambda: later in emqx.files.exported)
            assert emqx.count(fid, "init") == 1
            assert box.state(fid) == "waiting"
            emqx.receipt(fid)  # hours later
            assert until(lambda: box.state(fid) == "receipted")
        assert box.state(later) == "waiting"
        with running(box, emqx):  # after a restart of the agent nobody knows
            assert until(lambda: emqx.count(later, "init") == 2)


def test_a_rest_ends_and_grows(box):
    (fid,) = box.seal(clip_mp4=noise(2000))
    with Emqx() as emqx, running(box, emqx, receipt_timeout_s=0.2, refused_retry_s=1.0):
        assert until(lambda: emqx.count(fid, "fin") == 2)
        assert box.state(fid) == "waiting"
        emqx.receipt(fid)
        assert until(lambda: box.state(fid) == "receipted")


def test_a_broker_that_has_lost_pieces_gets_all_of_them_again(box):
    (fid,) = box.seal(clip_mp4=noise(400_000))
    with Emqx() as emqx:
        lost = threading.Event()
        take = emqx.files.publish

        def publish(topic, payload):
            if "/fin/" in topic and not lost.is_set():
                lost.set()
                emqx.files.forget()
            return take(topic, payload)

        emqx.files.publish = publish
        with running(box, emqx):
            assert until(lambda: fid in emqx.files.exported)
    assert emqx.files.exported[fid].content == box.contents[fid]
    assert emqx.count(fid, "fin") == 2
    assert box.state(fid) == "waiting"


def test_a_broker_without_room_or_without_file_transfer_gets_it_later(box):
    (fid,) = box.seal(clip_mp4=noise(50_000))
    with Emqx() as emqx:
        emqx.files.is_enabled = False
        with running(box, emqx):
            assert until(lambda: len(emqx.published) >= 2)
            assert box.state(fid) == "waiting"
            emqx.files.is_enabled, emqx.files.has_room = True, False
            assert until(lambda: emqx.count(fid, "0") >= 1)
            emqx.files.has_room = True
            assert until(lambda: fid in emqx.files.exported, 20)


def test_a_long_assembly_is_waited_for(box):
    """The end of a large file is acknowledged late: it is neither sent again nor taken for dead."""
    (fid,) = box.seal(clip_mp4=noise(50_000))
    with Emqx() as emqx:
        emqx.holds.set()
        with running(box, emqx, receipt_timeout_s=0.2, ack_timeout_s=0.5) as worker:
            assert until(lambda: len(emqx.held) == 1)
            turns = worker.turns
            assert not until(lambda: emqx.count(fid, "init") > 1 or emqx.connects > 1, 1.5)
            assert worker.turns > turns
            emqx.holds.clear()
            emqx.puback(*emqx.held[0])
            assert until(lambda: worker.worker.status().open == 0)
            emqx.receipt(fid)
            assert until(lambda: box.state(fid) == "receipted")


def test_a_lost_connection_begins_the_file_again(box):
    (fid,) = box.seal(clip_mp4=noise(600_000))
    with Emqx() as emqx:
        cut = threading.Event()
        take = emqx.files.publish

        def publish(topic, payload):
            if len(emqx.files.commands) > 4 and not cut.is_set():
                cut.set()
                emqx._socket.close()
                raise EOFError
            return take(topic, payload)

        emqx.files.publish = publish
        with running(box, emqx):
            assert until(lambda: fid in emqx.files.exported, 20)
    assert emqx.files.exported[fid].content == box.contents[fid]
    assert emqx.count(fid, "init") == 2


def test_topics_are_as_emqx_documents_them(box):
    (fid,) = box.seal(clip_mp4=noise(70_000))
    with Emqx() as emqx, running(box, emqx):
        assert until(lambda: fid in emqx.files.exported)
        topics = [topic for topic, _, _ in emqx.published]
    digest = box.ledger.find(fid).sha256
    assert topics[0] == f"$file/{fid}/init"
    assert topics[-1] == f"$file/{fid}/fin/70000/{digest}"
    for topic, payload, _ in emqx.published[1:-1]:
        with pytest.raises(MalformedMessage):
            wire.address(topic)
        assert payload
    assert not [topic for topic in topics if topic.startswith("outpost/")]


def test_pieces_fit_the_brokers_packets(box):
    (fid,) = box.seal(clip_mp4=noise(30_000))
    with Emqx(max_packet=2000) as emqx, running(box, emqx):
        assert until(lambda: fid in emqx.files.exported)
        assert max(len(topic) + len(payload) for topic, payload, _ in emqx.published) < 2000
