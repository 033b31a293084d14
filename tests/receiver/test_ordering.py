"""A hold by the centre's hand, over a real broker, to a real device and back."""

import threading

import pytest

from agent import cli
from agent.core.clock import RealClock
from agent.core.errors import MalformedMessage
from agent.core.wire import Topics
from agent.delivery.config import BrokerConfig, DeliveryConfig
from agent.delivery.outbox import Outbox
from agent.delivery.uplink import Uplink, live_sessions
from agent.device.commands import Commands
from agent.evidence import receipt
from agent.evidence.keys import DeviceKey
from agent.receiver import ordering
from agent.roles.keepsakes import centre_words
from agent.vision.hold import Keepsakes, listed
from firmware_sim import broker as broker_sim
from tests.delivery.centre import Running
from tests.delivery.test_uplink import BIRTH

TOPICS = Topics("yard", "cam-1")
SPAN = ["--camera", "gate", "--from", "2023-11-14T22:00:00", "--to", "2023-11-14T23:00:00"]
WHO = ["--reason", "case 7", "--by", "A. Weber"]


@pytest.mark.broker
def test_a_hold_goes_to_the_device_and_its_answer_comes_back(store, tmp_path, capsys) -> None:
    clock = RealClock()
    key = DeviceKey.load_or_create(tmp_path / "centre" / "receiver.key")
    outbox = Outbox(store, TOPICS, clock, boot=1)
    config = DeliveryConfig(receiver_key_path=tmp_path / "centre" / "receiver.pub")
    keepsakes = Keepsakes(store, clock, lambda *_: None, ("gate",))
    commands = Commands(
        store,
        outbox,
        lambda document: receipt.check_command(document, key.public),
        centre_words(keepsakes),
        clock,
    )
    with broker_sim.start("embedded") as broker:
        uplink = Uplink(
            live_sessions(BrokerConfig(port=broker.port), config, TOPICS, 1, clock),
            outbox,
            lambda document: receipt.check_row_receipt(document, key.public, "cam-1"),
            lambda: BIRTH,
            clock,
            config,
        )
        uplink.listen(commands.topic, commands.hear)
        where = ["--store", str(tmp_path / "centre"), "--broker", f"127.0.0.1:{broker.port}"]
        where += ["--site", "yard", "--device", "cam-1", "--wait", "20"]
        with Running(uplink), Running(commands):
            _until(lambda: uplink.status().link.state == "connected")
            assert cli.main(["command", "hold", *where, *SPAN, *WHO]) == 0
            said = capsys.readouterr().out
            hold_id = said.split()[-1]
            with store.reading() as connection:
                (found,) = listed(connection)["holds"]
            assert (said, found["id"]) == (f"cam-1: done: hold {hold_id}\n", hold_id)
            assert cli.main(["command", "release", *where, "--hold", hold_id, *WHO]) == 0
            assert cli.main(["command", "release", *where, "--hold", hold_id, *WHO]) == 1
            assert "refused: hold" in capsys.readouterr().out
        away = [*where[:-3], "cam-2", "--wait", "0.3"]
        assert cli.main(["command", "hold", *away, *SPAN, *WHO]) == 1
        assert "cam-2 has not answered yet" in capsys.readouterr().out


def test_a_store_without_a_key_signs_nothing(tmp_path, capsys) -> None:
    where = ["--store", str(tmp_path), "--site", "yard", "--device", "cam-1"]
    assert cli.main(["command", "hold", *where, *SPAN, *WHO]) == 78
    assert "no key; allowed: the folder of a receiver" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("word", "args"), [("replay", {}), ("hold", {"camera": "gate"}), ("release", {"hold": "x"})]
)
def test_what_is_not_in_order_is_not_signed(tmp_path, word: str, args: dict) -> None:
    key = DeviceKey.load_or_create(tmp_path / "receiver.key")
    with pytest.raises(MalformedMessage):
        ordering.signed(word, args, "cam-1", key, RealClock())


def _until(is_true, most_s: float = 20.0) -> None:
    clock, never = RealClock(), threading.Event()
    deadline_ns = clock.mono_ns() + most_s * 1e9
    while not is_true():
        assert clock.mono_ns() < deadline_ns
        clock.wait(never, 0.05)
