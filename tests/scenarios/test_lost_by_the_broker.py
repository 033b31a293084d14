"""A broker that forgets what it has acknowledged: the centre sees the gap, asks, and is told."""

import json

import pytest

from agent.core.clock import RealClock
from agent.core.model import Lane, Message
from agent.core.store import Store
from agent.core.wire import Topics
from agent.delivery.config import BrokerConfig, DeliveryConfig
from agent.delivery.outbox import Outbox
from agent.delivery.uplink import Uplink, live_sessions
from agent.device.commands import Commands
from agent.device.replay import Replay
from agent.evidence import gaprecord
from agent.evidence.keys import DeviceKey
from agent.evidence.receipt import check_command, check_row_receipt
from agent.receiver.config import ReceiverConfig
from agent.receiver.index import FILE_NAME, contents
from agent.receiver.schema import RECEIVER_MIGRATIONS
from agent.receiver.service import Receiver, sessions
from tests.delivery.centre import Running, until
from tests.delivery.test_uplink import BIRTH

pytestmark = pytest.mark.broker
DEVICE, SITE = "cam-1", "plaza"
TOPICS = Topics(SITE, DEVICE)
STATE = {"state": "good", "since_utc_ms": 1, "detail": ""}


class Field:
    """A device's live link and a centre, in one process, with one broker between."""

    def __init__(self, folder, store, port):
        self.folder, self.store, self.port, self.clock = folder, store, port, RealClock()
        self.outbox = Outbox(store, TOPICS, self.clock, boot=1)
        self.box_key = DeviceKey.load_or_create(folder / "devices" / f"{DEVICE}.key")
        (folder / "centre").mkdir()
        self.centre_key = DeviceKey.load_or_create(folder / "centre" / "receiver.key")

    def device(self):
        config = DeliveryConfig(self.folder / "r.pub", reconnect_max_s=0.2)
        uplink = Uplink(
            live_sessions(BrokerConfig(port=self.port), config, TOPICS, 1, self.clock),
            self.outbox,
            lambda document: check_row_receipt(document, self.centre_key.public, DEVICE),
            lambda: BIRTH,
            self.clock,
            config,
        )
        commands = Commands(
            self.store,
            self.outbox,
            lambda document: check_command(document, self.centre_key.public),
            {"replay": Replay(self.store, DEVICE, self.box_key, self.clock, uplink.resend)},
            self.clock,
        )
        uplink.listen(commands.topic, commands.hear)
        return Running(uplink), Running(commands)

    def put(self, count):
        for _ in range(count):
            self.outbox.put(Message(Lane.TELEMETRY, "state/x", STATE))

    def is_empty(self):
        return sum(self.outbox.depths().values()) == 0

    def gaps(self):
        return [
            (row["lane"], row["first_seq"], row["last_seq"], row["state"], row["reason"])
            for row in contents(self.folder / "centre")["gaps"]
        ]


class Centre:
    """A receiver that may come and go."""

    def __init__(self, field, replay_after_s=0.3):
        config = ReceiverConfig(
            BrokerConfig(port=field.port),
            SITE,
            field.folder / "centre",
            field.folder / "devices",
            replay_after_s=replay_after_s,
        )
        self.store = Store(config.store_dir / FILE_NAME, RECEIVER_MIGRATIONS, field.clock)
        self.store.open()
        make = sessions(config, field.clock)
        self.running = Running(Receiver(config, make, self.store, field.centre_key, field.clock))

    def __enter__(self):
        self.running.__enter__()
        return self

    def __exit__(self, *_):
        self.running.__exit__()
        self.store.close()

    def count(self):
        with self.store.reading() as connection:
            query = "SELECT count(*) FROM message WHERE lane = 'telemetry'"
            return connection.execute(query).fetchone()[0]


def test_telemetry_that_the_broker_acknowledged_and_forgot_is_told_with_a_signature(
    embedded, store, tmp_path
):
    field = Field(tmp_path, store, embedded.port)
    uplink, commands = field.device()
    with uplink, commands:
        with Centre(field) as centre:
            field.put(3)
            assert until(lambda: centre.count() == 3)
        field.put(5)
        assert until(field.is_empty), "the broker acknowledged all of it"
        embedded.kill()
        embedded.restart()
        with Centre(field) as centre:
            assert until(lambda: uplink.worker.status().link.state == "connected")
            field.put(1)
            assert until(lambda: ("telemetry", 4, 8, "told", "taken") in field.gaps(), 20)
            with centre.store.reading() as connection:
                row = connection.execute("SELECT record FROM gap WHERE first_seq = 4").fetchone()
            told = gaprecord.opened(json.loads(row["record"]), field.box_key.public, DEVICE)
            assert told["missing"] == [{"from": 4, "to": 8, "reason": "taken"}]
            assert until(field.is_empty), "the answer is signed for"


def test_a_device_that_is_away_finds_the_question_when_it_is_back(embedded, store, tmp_path):
    field = Field(tmp_path, store, embedded.port)
    with Centre(field) as centre:
        uplink, commands = field.device()
        with uplink, commands:
            field.put(4)
            assert until(lambda: centre.count() == 4)
        centre.store.write(forget_two)
        assert until(lambda: asks(centre) == 1)
        uplink, commands = field.device()
        with uplink, commands:
            assert until(lambda: ("telemetry", 2, 3, "told", "taken") in field.gaps(), 20)


def forget_two(connection):
    connection.execute(
        "INSERT INTO gap (device, boot, lane, first_seq, last_seq, since_utc_ms, state, ask_utc_ms)"
        " VALUES (?, 1, 'telemetry', 2, 3, 1, 'open', 1)",
        (DEVICE,),
    )


def asks(centre):
    with centre.store.reading() as connection:
        return connection.execute("SELECT asks FROM gap").fetchone()["asks"]
