"""The receiver behind real brokers, with a hand-written device; also killed with -9 and resumed."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from agent.core.clock import RealClock
from agent.core.store import Store
from agent.delivery.config import BrokerConfig
from agent.evidence.keys import DeviceKey, PublicKey
from agent.evidence.receipt import check_file_receipt, check_row_receipt
from agent.evidence.verify import verify
from agent.receiver.config import ReceiverConfig
from agent.receiver.index import FILE_NAME, contents
from agent.receiver.schema import RECEIVER_MIGRATIONS
from agent.receiver.service import Receiver, sessions
from tests.evidence.handover import SITE
from tests.receiver.paho_device import PahoDevice
from tests.receiver.rig import Device, done, fid, payload

pytestmark = pytest.mark.broker
ROOT = Path(__file__).parent.parent.parent
CONTENT = random.Random(5).randbytes(300_000)


class Centre:
    """A receiver in this process."""

    def __init__(self, folder, port):
        self.store_dir = folder / "centre"
        self.store_dir.mkdir(exist_ok=True)
        clock = RealClock()
        config = ReceiverConfig(
            BrokerConfig(port=port), SITE, self.store_dir, folder / "devices", "centre-1"
        )
        self.key = DeviceKey.load_or_create(self.store_dir / "receiver.key")
        self.store = Store(self.store_dir / FILE_NAME, RECEIVER_MIGRATIONS, clock)
        self.store.open()
        self._stop = threading.Event()
        self._served = threading.Event()
        worker = Receiver(config, sessions(config, clock), self.store, self.key, clock)
        self._thread = threading.Thread(target=worker.run, args=(self._stop, self._served.set))
        self._thread.start()

    def close(self):
        self._stop.set()
        begun_s = time.monotonic()
        self._thread.join(10)
        assert time.monotonic() - begun_s < 3
        self.store.close()


@pytest.fixture
def device(tmp_path):
    device = Device(tmp_path)
    device.register(tmp_path / "devices")
    return device


@pytest.fixture
def centre(tmp_path, broker):
    centre = Centre(tmp_path, broker.port)
    yield centre
    centre.close()


def listening(box, device):
    """Send an event as a device does, again until the receiver serves; gives the receipt."""
    for _ in range(60):
        box.send("event/zone_enter", device.envelope(1))
        found = box.find("row_receipt", box.topics.receipt, 0.25)
        if found:
            return found[0]
    raise AssertionError("the receiver never answered")


@pytest.fixture
def box(broker, device):
    box = PahoDevice(broker.port, device)
    yield box
    box.close()


def test_event_gets_a_signed_receipt_and_again_when_it_comes_again(centre, box, device):
    message = device.envelope(1)
    receipt = listening(box, device)
    assert check_row_receipt(receipt, centre.key.public, "cam-1") == (message["id"],)
    time.sleep(0.3)  # receipts of repeats that `listening` may have made
    again = box.event(message, len(box.received) + 1)
    assert again[-1]["ids"] == [message["id"]]
    assert len(contents(centre.store_dir)["events"]) == 1


def test_hand_over_in_any_order_with_gaps_and_repeats_to_its_receipts(centre, box, device):
    listening(box, device)
    files, signed = device.clip(contents={"clip-1.mp4": CONTENT, "snapshot.jpg": b"jpeg"})
    offer = device.offer(files, signed)
    assert box.ask(offer, "offer")[0]["ranges"] == [[0, len(CONTENT)]]
    box.chunks(offer, CONTENT, [(200_000, 300_000), (10_000, 90_000), (50_000, 120_000)])
    box.send(f"file/{offer['fid']}/299999", b"xx")  # beyond the end: refused, nothing else happens
    missing = box.ask(offer, "done", 2)[-1]["ranges"]
    assert missing == [[0, 10_000], [120_000, 200_000]]
    box.chunks(offer, CONTENT, [tuple(span) for span in missing], 7_001)
    receipt = box.done(offer)[0]
    expected = {name: offer[name] for name in ("fid", "device", "sha256", "size_bytes")}
    check_file_receipt(receipt, centre.key.public, expected)
    picture = device.offer(files, signed, "snapshot.jpg")
    box.ask(picture, "offer")
    box.chunks(picture, b"jpeg")
    box.done(picture)
    assert box.done(offer, 2) == [receipt, receipt]
    folder = centre.store_dir / SITE / "cam-1" / payload(signed)["clip_id"]
    report = verify(folder, device.key.public, centre.key.public)
    assert report.ok, report.text()


def test_bad_messages_of_one_device_do_not_disturb_another(centre, box, device, broker, tmp_path):
    listening(box, device)
    other = Device(tmp_path, "cam-2")
    other.register(tmp_path / "devices")
    stranger = PahoDevice(broker.port, Device(tmp_path, "cam-3"))
    rogue = PahoDevice(broker.port, other)
    for part in ("event/x", "beat", "birth", "state/x", f"file/{fid(1)}/offer", f"file/{fid(1)}/0"):
        for content in (b"{", b"\xff" * 50_000, b"[" * 20_000):
            rogue.send(part, content)
            stranger.send(part, content)
    files, signed = device.clip(contents={"clip-1.mp4": CONTENT})
    stolen = device.offer(files, signed) | {"device": "cam-2"}
    assert "manifest: signature" in rogue.ask(stolen, "offer")[0]["refused"]
    offer = device.offer(files, signed)
    box.ask(offer, "offer")
    box.chunks(offer, CONTENT)
    assert box.done(offer)
    assert stranger.received == []
    stranger.close()
    rogue.close()
    rejected = contents(centre.store_dir)["rejected"]
    assert {row["device"] for row in rejected} == {"cam-2", "cam-3"}


def start(folder, port):
    """Start `outpost receive` as a process."""
    argv = [
        *(sys.executable, "-m", "agent", "receive", "--broker", f"127.0.0.1:{port}"),
        *("--site", SITE, "--store", str(folder / "centre")),
        *("--devices", str(folder / "devices"), "--name", "centre-1"),
    ]
    with (folder / "receiver.log").open("ab") as output:
        return subprocess.Popen(argv, cwd=ROOT, stdout=output, stderr=output)


def end(process, how):
    os.kill(process.pid, how)
    return process.wait(15)


@pytest.mark.crash
def test_killed_receiver_goes_on_where_it_was(tmp_path, device, embedded):
    """Kill -9 with chunks unsynced, synced, and after the receipt: all comes through, once."""
    content = random.Random(6).randbytes(9_000_000)
    files, signed = device.clip(contents={"clip-1.mp4": content})
    offer = device.offer(files, signed)
    receiver = start(tmp_path, embedded.port)
    box = PahoDevice(embedded.port, device)
    listening(box, device)
    needs = len(box.ask(offer, "offer"))
    starts = [0]
    for pause_s in (0.1, 1.5, 0.2):
        span = (starts[-1], starts[-1] + 3_000_000)
        box.chunks(offer, content, [span], 65_536)
        time.sleep(pause_s)  # the receiver syncs each second
        end(receiver, signal.SIGKILL)
        receiver = start(tmp_path, embedded.port)
        needs = ask_until(box, offer, needs)
        starts.append(last_need(box, offer)["ranges"][0][0])
    assert starts == sorted(starts)
    assert starts[-1] >= 3_000_000
    box.chunks(offer, content, [tuple(span) for span in last_need(box, offer)["ranges"]], 65_536)
    receipt = done_until(box, offer)
    end(receiver, signal.SIGKILL)
    receiver = start(tmp_path, embedded.port)
    assert done_until(box, offer, 1 + len(answers(box, offer, "receipt"))) == receipt
    assert end(receiver, signal.SIGTERM) == 0
    box.close()
    centre = PublicKey.load(tmp_path / "centre" / "receiver.pub")
    folder = tmp_path / "centre" / SITE / "cam-1" / payload(signed)["clip_id"]
    report = verify(folder, device.key.public, centre)
    assert report.ok, report.text()
    assert contents(tmp_path / "centre")["incoming"] == []


def answers(box, offer, part):
    topic = box.topics.file(offer["fid"], part)
    return [content for name, content in box.received if name == topic]


def last_need(box, offer):
    return box.wait("need", box.topics.file(offer["fid"], "need"))[-1]


def ask_until(box, offer, before):
    """Offer as a device does, again until there is an answer."""
    for _ in range(30):
        box.send(f"file/{offer['fid']}/offer", offer)
        time.sleep(0.5)
        if len(answers(box, offer, "need")) > before:
            return len(answers(box, offer, "need"))
    raise AssertionError("no answer to the offer")


def done_until(box, offer, count=1):
    for _ in range(30):
        box.send(f"file/{offer['fid']}/done", done(offer))
        time.sleep(0.5)
        if len(answers(box, offer, "receipt")) >= count:
            return answers(box, offer, "receipt")[-1]
    raise AssertionError("no receipt")


def test_messages_wait_for_a_receiver_that_is_away(tmp_path, device, mosquitto):
    """Clean start off and a session expiry: what came meanwhile is delivered at its return."""
    box = PahoDevice(mosquitto.port, device)
    centre = Centre(tmp_path, mosquitto.port)
    listening(box, device)
    centre.close()
    messages = [device.envelope(number) for number in range(2, 30)]
    for message in messages:
        box.send("event/zone_enter", message).wait_for_publish(5)
    centre = Centre(tmp_path, mosquitto.port)
    wanted = {message["id"] for message in messages}
    until_s = time.monotonic() + 15
    while wanted and time.monotonic() < until_s:
        time.sleep(0.05)
        for receipt in box.wait("row_receipt", box.topics.receipt):
            wanted -= set(check_row_receipt(receipt, centre.key.public, "cam-1"))
    centre.close()
    box.close()
    assert wanted == set()


def test_receiver_outlives_its_broker(tmp_path, device, mosquitto):
    centre = Centre(tmp_path, mosquitto.port)
    box = PahoDevice(mosquitto.port, device)
    listening(box, device)
    mosquitto.kill()
    time.sleep(0.3)
    mosquitto.restart()
    until_s = time.monotonic() + 20
    number = 2
    while time.monotonic() < until_s:
        number += 1
        message = device.envelope(number)
        box.send("event/zone_enter", message)
        time.sleep(0.3)
        ids = {i for one in box.wait("row_receipt", box.topics.receipt) for i in one["ids"]}
        if message["id"] in ids:
            break
    centre.close()
    box.close()
    assert message["id"] in ids
