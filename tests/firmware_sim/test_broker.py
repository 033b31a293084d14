"""The brokers of the demo and the tests really start, die, come back and carry messages."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.core.clock import RealClock
from agent.delivery.config import BrokerConfig
from agent.delivery.session import Acked, MqttSession, Received, SessionOptions
from firmware_sim import broker as brokers

pytestmark = pytest.mark.broker


def connected(port: int, client_id: str) -> MqttSession:
    session = MqttSession(BrokerConfig(port=port), SessionOptions(client_id), RealClock())
    session.connect()
    return session


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "zombie" not in Path(f"/proc/{pid}/status").read_text()


def test_carries_a_message(broker):
    listener, talker = connected(broker.port, "listener"), connected(broker.port, "talker")
    listener.subscribe(["a/#"])
    token = talker.publish("a/b", b"hello")
    events = talker.poll(2.0)
    assert events == [Acked(token, 0)]
    assert listener.poll(2.0) == [Received("a/b", b"hello")]
    talker.close()
    listener.close()


def test_kill_ends_the_broker_itself_and_restart_keeps_the_port(broker):
    pid, port = broker.pid, broker.port
    broker.kill()
    assert not is_alive(pid)
    with pytest.raises(RuntimeError, match="not started"):
        _ = broker.pid
    broker.restart()
    assert broker.port == port
    assert broker.pid != pid
    connected(port, "again").close()
    broker.stop()
    broker.stop()


def test_mosquitto_keeps_over_kill_what_it_saved(mosquitto):
    listener = connected(mosquitto.port, "listener")
    listener.subscribe(["kept/#"])
    listener.close()
    talker = connected(mosquitto.port, "talker")
    wanted = {talker.publish("kept/x", b"%d" % number) for number in range(30)}
    while wanted:
        wanted -= {event.token for event in talker.poll(2.0) if isinstance(event, Acked)}
    time.sleep(0.3)  # it acknowledges first and saves an instant later
    mosquitto.kill()
    talker.close()
    mosquitto.restart()
    listener = connected(mosquitto.port, "listener")
    assert listener.session_present
    got = []
    deadline = time.monotonic() + 5
    while len(got) < 30 and time.monotonic() < deadline:
        got += [event.payload for event in listener.poll(0.5) if isinstance(event, Received)]
    assert got == [b"%d" % number for number in range(30)]
    listener.close()


def test_a_taken_port_is_told(broker, tmp_path):
    with pytest.raises(RuntimeError, match=f"port {broker.port}"):
        brokers.start(broker.kind, port=broker.port, directory=tmp_path / "second")


def test_an_unknown_kind_is_told():
    with pytest.raises(ValueError, match="'rabbit'; allowed: auto, mosquitto, embedded"):
        brokers.start("rabbit")


def test_extra_lines_reach_mosquitto(mosquitto):
    mosquitto.stop()
    with brokers.start(
        "mosquitto", directory=mosquitto.directory, extra="max_packet_size 5000"
    ) as limited:
        session = connected(limited.port, "limited")
        assert session.max_packet_bytes == 5000
        session.close()


@pytest.mark.parametrize("kind", ["embedded", "auto"])
def test_runs_as_a_program_and_takes_the_broker_along(kind, tmp_path):
    arguments = ["--port", "0", "--kind", kind, "--directory", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, "-m", "firmware_sim.broker", *arguments],
        cwd=Path(brokers.__file__).parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        line = program.stdout.readline()
        port, pid = (
            int(word.rstrip(",")) for word in (line.split(":")[1].split()[0], line.split()[-1])
        )
        connected(port, "x").close()
        program.kill()
        program.wait(5)
    deadline = time.monotonic() + 5
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(pid)
