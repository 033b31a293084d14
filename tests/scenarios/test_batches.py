"""What piled up in an outage goes in batches: both sides of it, and centres that know of none."""

import json
import random
from contextlib import ExitStack, closing

import pytest
import zstandard
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from agent.core.model import Lane, Message
from agent.delivery import dictionary
from agent.delivery.outbox import Outbox
from firmware_sim import broker as brokers
from firmware_sim.gate import Gate
from tests.delivery.centre import until
from tests.delivery.test_outbox import EVENT
from tests.evidence.handover import DEVICE
from tests.scenarios.field import TOPICS, Field

pytestmark = pytest.mark.broker
POSITION = {"lat_deg": 47.2, "lon_deg": 8.5, "altitude_m": 499.6, "quality": 1, "satellites": 8}


class Backlog(Field):
    """A device that was off the air in its boot 1 and is in its boot 2 now."""

    def __init__(self, folder, store, port):
        super().__init__(folder, store, port)
        (folder / "devices" / f"{DEVICE}.pub").write_bytes(self.key.public.pem)
        self.earlier, self.outbox = self.outbox, Outbox(store, TOPICS, self.clock, boot=2)

    def pile_up(self, count, lane=Lane.TELEMETRY, pad=0):
        """Put rows of the last boot; gives their bytes by id."""
        dice = random.Random(count)

        def put(connection):
            for number in range(count):
                detail = f"row {number} " + dice.randbytes(pad).hex()
                body = {"state": "good", "since_utc_ms": number, "detail": detail}
                self.earlier.put_in(connection, Message(lane, "state/link", body))

        self.store.write(put)
        with self.store.reading() as connection:
            return {
                row["message_id"]: row["payload"]
                for row in connection.execute("SELECT message_id, payload FROM outbox")
            }

    def is_empty(self):
        return not sum(self.outbox.depths().values())


@pytest.fixture
def field(tmp_path, store, broker):
    return Backlog(tmp_path, store, broker.port)


class Ear:
    """Hears what passes, as any reader may; `topics` are what it listens to."""

    def __init__(self, port, *topics):
        self.seen = []
        self._client = Client(
            CallbackAPIVersion.VERSION2, f"ear-{port}", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.on_message = lambda _client, _data, message: self.seen.append(
            (message.topic.removeprefix(f"{TOPICS.root}/"), message.payload)
        )
        self._client.connect("127.0.0.1", port)
        self._client.subscribe([(f"{TOPICS.root}/{topic}", 1) for topic in topics])
        self._client.loop_start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._client.disconnect()
        self._client.loop_stop()
        self._client.on_message = None

    def batches(self):
        return [payload for topic, payload in list(self.seen) if topic.startswith("backfill/")]

    def ids(self):
        """Give the ids of the messages that came alone."""
        alone = [payload for topic, payload in list(self.seen) if not topic.startswith("backfill/")]
        return {json.loads(payload)["id"] for payload in alone if b'"lane"' in payload}


def kinds(ear):
    """Give the first parts of the topics in the order they came."""
    return [topic.partition("/")[0] for topic, _ in list(ear.seen)]


def kept(centre):
    """Give the bytes of what the centre has, by id."""
    with centre.store.reading() as connection:
        rows = connection.execute("SELECT id, payload FROM message WHERE kind != 'birth'")
        return {row["id"]: row["payload"] for row in rows}


def test_a_backlog_goes_in_batches_and_arrives_byte_for_byte(field):
    rows = field.pile_up(2000)
    with Ear(field.port, "#") as ear, field.centre() as centre, field.uplink() as device:
        assert until(field.is_empty, 20), field.outbox.depths()
        assert kept(centre) == rows
        assert len(ear.batches()) >= 2000 // 256
        assert len(ear.ids() & rows.keys()) < 8, "only a rest too small for a batch"
        alone = len(ear.ids() & rows.keys())
        assert until(lambda: device.worker.status().receipted == 2000 - alone)
        assert until(lambda: device.worker.status().accepted == 1 + alone)
        assert device.worker.status().published < 100
        assert centre.contents("rejected") == []
        assert centre.contents("gaps") == []
        plain = zstandard.ZstdDecompressor().decompress(ear.batches()[0]).split(b"\n")
        assert plain == list(rows.values())[: len(plain)], "the oldest first, as they are"


def test_alarms_and_states_go_singly_however_old_they_are(field):
    event = Message(Lane.ALARM, "event/zone_enter", EVENT, needs_receipt=True)
    old = {field.earlier.put(event) for _ in range(20)} | set(field.pile_up(20, Lane.STATE))
    with Ear(field.port, "#") as ear, field.centre(), field.uplink():
        assert until(field.is_empty, 20), field.outbox.depths()
        assert until(lambda: ear.ids() >= old)
        assert ear.batches() == []


def test_a_storm_of_alarms_leaves_the_batches_their_share(field):
    field.pile_up(300)

    def storm(connection):
        for number in range(1500):
            body = EVENT | {"start_utc_ms": number}
            field.outbox.put_in(connection, Message(Lane.ALARM, "event/zone_enter", body))

    field.store.write(storm)
    with Ear(field.port, "#") as ear, field.centre(), field.uplink():
        assert until(field.is_empty, 60), field.outbox.depths()
        assert until(lambda: kinds(ear).count("event") == 1500), "the ear may be behind"
        heard = kinds(ear)
    assert heard.index("event") <= 3, "after birth and death's end"
    assert heard[:1000].count("backfill") >= 1, "not when all alarms have gone"


def test_the_connection_is_cut_in_the_middle_again_and_again(field):
    """Also with acknowledgements that get lost: what went twice is there once."""
    rows = field.pile_up(4000, pad=100)
    with field.centre() as centre, closing(Gate(field.port).start()) as gate:
        field.port = gate.port
        with field.uplink(receipt_timeout_s=15) as device:
            for share in (0.1, 0.3, 0.5, 0.7):
                signed = device.worker.status().receipted
                assert until(lambda signed=signed: device.worker.status().receipted > signed, 20)
                assert until(lambda share=share: len(kept(centre)) >= share * len(rows), 20)
                gate.set(has_acks=share > 0.2)
                gate.cut()
            gate.set()
            assert until(field.is_empty, 30), field.outbox.depths()
            assert kept(centre) == rows
            assert device.worker.status().accepted <= 1 + 8, "singly went the birth and a rest"


def test_while_a_centre_that_has_signed_is_away_nothing_is_forgotten(tmp_path, store, embedded):
    """A reader of everything lets the broker say that all is well."""
    field = Backlog(tmp_path, store, embedded.port)
    event = Message(Lane.ALARM, "event/zone_enter", EVENT, needs_receipt=True)
    with Ear(field.port, "#") as ear, ExitStack() as stack:
        with field.centre() as centre:
            field.outbox.put(event)
            with field.uplink():
                assert until(field.is_empty, 20), "it listens"
            rows = field.pile_up(5000, pad=100)
            device = stack.enter_context(field.uplink(receipt_timeout_s=1.5))
            assert until(lambda: device.worker.status().receipted > 0, 20)
        seen = len(ear.batches())
        assert until(lambda: field.is_empty() or len(ear.batches()) > seen + 1, 20)
        waiting = field.outbox.depths()["telemetry"]
        with field.centre() as centre:
            assert waiting >= len(rows.keys() - kept(centre).keys()), "not there, so here"
            assert until(field.is_empty, 30), field.outbox.depths()
            assert kept(centre).keys() >= rows.keys()


def test_a_centre_that_takes_batches_and_reads_none_gets_every_row_alone(field):
    """Its subscription makes the broker say that all is well: nothing is forgotten on that."""
    rows = field.pile_up(600)
    with Ear(field.port, "#") as ear, field.uplink(receipt_timeout_s=0.5):
        assert until(lambda: ear.batches() != [])
        assert field.outbox.depths()["telemetry"] == 600
        assert until(field.is_empty, 20), field.outbox.depths()
        assert until(lambda: ear.ids() >= rows.keys())
        assert len(ear.batches()) == 1


def test_nobody_listens_for_batches_and_mosquitto_says_so(tmp_path, store, mosquitto):
    field = Backlog(tmp_path, store, mosquitto.port)
    rows = field.pile_up(600)
    with Ear(field.port, "birth", "state/+") as ear, field.uplink(receipt_timeout_s=60):
        assert until(field.is_empty, 20), field.outbox.depths()
        assert until(lambda: ear.ids() >= rows.keys())


def test_batches_can_be_switched_off(field):
    rows = field.pile_up(300)
    with Ear(field.port, "#") as ear, field.uplink(batch="off"):
        assert until(field.is_empty, 20), field.outbox.depths()
        assert until(lambda: ear.ids() >= rows.keys())
        assert ear.batches() == []


def test_a_broker_of_small_packets_gets_small_batches(tmp_path, store, mosquitto):
    mosquitto.stop()
    extra = "max_packet_size 9000"
    with brokers.start("mosquitto", directory=tmp_path / "small", extra=extra) as small:
        field = Backlog(tmp_path, store, small.port)
        rows = field.pile_up(300, pad=100)
        with Ear(small.port, "backfill/+") as ear, field.centre() as centre, field.uplink():
            assert until(field.is_empty, 20), field.outbox.depths()
            assert kept(centre) == rows
            assert len(ear.batches()) >= 4
            assert max(map(len, ear.batches())) <= 9000


def test_a_bad_row_costs_the_others_nothing(field):
    rows = field.pile_up(100)
    (spoiled, *_) = list(rows)[50:]

    def spoil(connection):
        payload = rows.pop(spoiled).replace(b'"boot":1', b'"boot":0')
        connection.execute("UPDATE outbox SET payload = ? WHERE message_id = ?", (payload, spoiled))

    field.store.write(spoil)
    with field.centre() as centre, field.uplink():
        assert until(field.is_empty, 20), field.outbox.depths()
        assert kept(centre) == rows
        (rejected,) = centre.contents("rejected")
        assert "boot" in rejected["reason"]


@pytest.fixture
def trained(tmp_path, field):
    """Give rows that wait, and a dictionary made of them."""
    rows = field.pile_up(600)
    path = tmp_path / "theirs" / "links"
    path.parent.mkdir()
    path.write_bytes(dictionary.train(list(rows.values()), 4096))
    return rows, path


def needed(packed):
    return zstandard.get_frame_parameters(packed).dict_id


def test_both_ends_have_the_dictionary(field, trained):
    rows, path = trained
    with (
        Ear(field.port, "backfill/+") as ear,
        field.centre(dictionaries_dir=path.parent) as centre,
        field.uplink(dictionary_path=path, receipt_timeout_s=15),
    ):
        assert until(field.is_empty, 20), field.outbox.depths()
        assert kept(centre) == rows
        assert until(lambda: ear.batches() != [])
        assert all(needed(packed) for packed in ear.batches())
        assert centre.contents("rejected") == []


def test_a_centre_without_the_dictionary_says_so_and_gets_batches_without(field, trained):
    rows, path = trained
    with (
        Ear(field.port, "backfill/+") as ear,
        field.centre() as centre,
        field.uplink(dictionary_path=path, receipt_timeout_s=2),
    ):
        assert until(field.is_empty, 20), field.outbox.depths()
        assert kept(centre) == rows
        assert until(lambda: len(ear.batches()) >= 2)
        assert [bool(needed(packed)) for packed in ear.batches()][:2] == [True, False]
        (rejected,) = centre.contents("rejected")
        assert rejected["reason"].startswith(f"batch: dictionary {needed(ear.batches()[0])} is not")
