"""What a broken connection costs: no more than was under way, measured on a slow link."""

import os
import socket
from pathlib import Path

import pytest

from agent.core.clock import RealClock
from agent.delivery.config import BrokerConfig
from agent.delivery.session import TCP_CONGESTION, MqttSession, SessionOptions
from agent.delivery.window import CHUNK_BYTES, LARGE_CHUNK_BYTES, SMALL_CHUNK_BYTES
from firmware_sim import broker as brokers
from firmware_sim.gate import Gate
from tests.delivery.centre import until
from tests.scenarios.field import Field

pytestmark = pytest.mark.broker
CONGESTION = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")
CUTS = 4


@pytest.fixture
def field(embedded, store, tmp_path):
    return Field(tmp_path, store, embedded.port)


@pytest.fixture
def gate(embedded):
    gate = Gate(embedded.port, seed=1).start()
    yield gate
    gate.close()


@pytest.mark.parametrize(
    ("bytes_per_s", "delay_s", "size_bytes"),
    [(1_500_000, 0.03, 3_000_000), (100_000, 0.1, 400_000)],
)
def test_an_interruption_costs_no_more_than_the_window_and_a_chunk(
    bytes_per_s, delay_s, size_bytes, gate, field
):
    (fid,) = field.seal(clip_mp4=os.urandom(size_bytes))
    gate.set(rate_bytes_per_s=bytes_per_s, delay_s=delay_s)
    windows, chunks = [], []
    with field.centre() as centre, field.transfers(port=gate.port) as running:

        def passed(target):
            status = running.worker.status()
            windows.append(status.window_bytes)
            chunks.append(status.chunk_bytes)
            return centre.received_bytes() > target

        for cut in range(1, CUTS + 1):
            target = size_bytes * cut // (CUTS + 2)
            assert until(lambda target=target: passed(target), 30)
            gate.cut()
        assert until(lambda: field.states() == ["receipted"], 60)
        resent_bytes = running.worker.status().sent_bytes - size_bytes
        assert centre.stored(fid) == field.content(fid)
    assert 0 <= resent_bytes <= CUTS * (max(windows) + max(chunks))
    slow = bytes_per_s < 125_000
    assert chunks[-1] == (SMALL_CHUNK_BYTES if slow else CHUNK_BYTES)


def test_on_a_local_network_chunks_are_large(field):
    field.seal(clip_mp4=os.urandom(8_000_000))
    sizes = set()
    with field.centre(), field.transfers() as running:
        status = running.worker.status
        assert until(lambda: sizes.add(status().chunk_bytes) or field.states() == ["receipted"], 30)
        if status().bandwidth_bytes_per_s > 15_000_000:
            assert LARGE_CHUNK_BYTES in sizes


def test_unacknowledged_chunks_never_exceed_the_brokers_receive_maximum(mosquitto, store, tmp_path):
    mosquitto.stop()
    with brokers.start(
        "mosquitto", directory=tmp_path / "narrow", extra="max_inflight_messages 3"
    ) as narrow:
        field = Field(tmp_path, store, narrow.port)
        (fid,) = field.seal(clip_mp4=os.urandom(1_000_000))
        most = []
        with field.centre() as centre, field.transfers() as running:
            worker = running.worker
            assert until(
                lambda: most.append(len(worker._tickets)) or field.states() == ["receipted"], 30
            )
            assert centre.stored(fid) == field.content(fid)
        assert 0 < max(most) <= 3


def test_bbr_is_set_where_the_kernel_has_it(embedded):
    if "bbr" not in CONGESTION.read_text().split():
        pytest.skip("this kernel has no BBR (modprobe tcp_bbr)")
    session = MqttSession(BrokerConfig(port=embedded.port), SessionOptions("x"), RealClock())
    session.connect()
    try:
        if not can_choose_bbr():
            pytest.skip("BBR may not be chosen here (net.ipv4.tcp_allowed_congestion_control)")
        assert session.is_paced
    finally:
        session.close()


def can_choose_bbr():
    with socket.socket() as plain:
        try:
            plain.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, b"bbr")
        except OSError:
            return False
    return True
