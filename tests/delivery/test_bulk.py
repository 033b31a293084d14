"""The uploader by itself: https, the site's schedule, a file that changes, an end at any time."""

import datetime as dt
import ssl
import time

import pytest

from agent.core.clock import RealClock
from agent.core.errors import UplinkDown
from agent.core.web import Web
from agent.delivery.bulk import Uploads
from agent.delivery.meter import Meter
from agent.delivery.parts import Part
from agent.delivery.schedule import ScheduleConfig
from agent.delivery.sending import Harmed
from agent.receiver.s3 import Bucket, Upload
from agent.receiver.sigv4 import Credentials
from firmware_sim.s3 import S3
from firmware_sim.s3 import Upload as Kept
from tests.crash.certificates import Authority
from tests.delivery.box import Box, noise
from tests.delivery.centre import until

KEYS = ("AKIDTEST", "secret-of-the-test")
PART_BYTES = 200_000


class Desk:
    """A file in three parts and a server for them."""

    def __init__(self, box, server, ca_path=None, schedule=None):
        (self.fid,) = box.seal(clip_mp4=noise(3 * PART_BYTES))
        self.box, self.server = box, server
        self.sending = _Sending(box.ledger.find(self.fid))
        self.path = box.path(self.fid)
        right = {"source": "ntp"}
        self.meter = Meter(schedule or ScheduleConfig(), RealClock(), clock_state=lambda: right)
        self.meter.look()
        self.uploads = Uploads(ca_path, RealClock())
        server.least_part_bytes = PART_BYTES

    def hand_out(self, endpoint=None):
        bucket = Bucket(
            endpoint or self.server.endpoint,
            self.server.bucket,
            Credentials(*KEYS, self.server.region),
            RealClock(),
        )
        self.server.uploads["1"] = Kept("clip.mp4", time.time())
        upload = Upload("clip.mp4", "1")
        self.sending.parts = tuple(
            Part(
                number,
                (number - 1) * PART_BYTES,
                number * PART_BYTES,
                bucket.part_url(upload, number, 600),
            )
            for number in (1, 2, 3)
        )

    def outcome(self, timeout_s=20.0):
        found = []

        def is_over():
            outcome = self.uploads.turn(self.sending, self.path, self.meter)
            found.extend([outcome] if outcome else [])
            return found

        assert until(is_over, timeout_s)
        return found[0]


class _Sending:
    """What the uploader reads of a transfer."""

    def __init__(self, transfer):
        self.transfer = transfer
        self.parts = ()
        self.rate_bytes_per_s = 0


@pytest.fixture
def box(store, tmp_path):
    return Box(store, tmp_path)


@pytest.fixture
def desk(box):
    with S3(*KEYS) as server:
        made = Desk(box, server)
        made.hand_out()
        yield made
        made.uploads.close()


def test_all_parts_go_up_in_order(desk):
    outcome = desk.outcome()
    assert (outcome.uploaded, outcome.error) == (3, None)
    kept = desk.server.uploads["1"].parts
    assert b"".join(kept[number] for number in sorted(kept)) == desk.box.contents[desk.fid]
    assert desk.uploads.sent_bytes == 3 * PART_BYTES


def test_over_tls_only_the_authority_of_the_configuration_counts(box, tmp_path):
    day = dt.timedelta(days=1)
    authority, other = Authority(tmp_path), tmp_path / "other"
    other.mkdir()
    certificate, key = authority.issue("s3", -day, day)
    with S3(*KEYS).with_tls(certificate, key) as server:
        endpoint = server.endpoint.replace("127.0.0.1", "localhost")
        desk = Desk(box, server, authority.path)
        desk.hand_out(endpoint)
        assert desk.outcome().error is None
        stranger = Web(ssl.create_default_context(cafile=Authority(other).path))
        with pytest.raises(UplinkDown, match="CERTIFICATE_VERIFY_FAILED"):
            stranger.send("PUT", desk.sending.parts[0].url, {"content-length": "0"})
        assert len(server.puts) == 3


def test_a_missing_authority_is_told_and_ends_nothing_else(box, tmp_path):
    with S3(*KEYS) as server:
        desk = Desk(box, server, tmp_path / "nowhere.pem")
        desk.hand_out()
        outcome = desk.outcome()
    assert isinstance(outcome.error, UplinkDown)
    assert "nowhere.pem" in str(outcome.error)


def test_a_file_that_became_shorter_is_harmed(desk):
    desk.path.write_bytes(noise(PART_BYTES + 5))
    outcome = desk.outcome()
    assert outcome.uploaded == 1
    assert isinstance(outcome.error, Harmed)
    assert outcome.error.harm == "truncated"


def test_a_file_that_is_gone_is_harmed(desk):
    desk.path.unlink()
    assert desk.outcome().error.harm == "missing"


def test_an_upload_keeps_to_the_cap_of_the_schedule(box):
    with S3(*KEYS) as server:
        desk = Desk(box, server, schedule=ScheduleConfig(files_kbit_s=1600))  # 200 kB/s
        desk.hand_out()
        begun_s = time.monotonic()
        outcome = desk.outcome()
        assert outcome.error is None
        assert time.monotonic() - begun_s > 1.5
        assert desk.meter.figures()["file_bytes_today"] == 3 * PART_BYTES


def test_when_its_time_is_over_it_ends_with_the_part(box):
    with S3(*KEYS) as server:
        schedule = ScheduleConfig("UTC", metered=True, files_mb_per_day=0.3)
        desk = Desk(box, server, schedule=schedule)
        desk.hand_out()
        outcome = desk.outcome()
        assert "time" in str(outcome.error)
        assert outcome.uploaded in (1, 2)


def test_it_ends_at_once_when_it_is_dropped(desk):
    desk.sending.rate_bytes_per_s = 20_000
    assert desk.uploads.turn(desk.sending, desk.path, desk.meter) is None
    assert until(lambda: desk.uploads.sent_bytes > 0)
    desk.uploads.drop("another")
    begun_s = time.monotonic()
    desk.uploads.drop(desk.fid)
    assert time.monotonic() - begun_s < 5
    desk.sending.rate_bytes_per_s = 0
    desk.hand_out()
    assert desk.outcome().error is None


def test_an_answer_without_end_is_not_read(desk):
    desk.server.trouble.answer_bytes = 3 << 20
    desk.uploads.turn(desk.sending, desk.path, desk.meter)
    assert until(lambda: desk.server.puts)
    assert desk.uploads.turn(desk.sending, desk.path, desk.meter) is None
    desk.server.trouble.answer_bytes = 0
    assert desk.outcome().error is None
