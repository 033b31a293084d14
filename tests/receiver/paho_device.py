"""A device written by hand on paho: says what a test tells it and keeps the centre's answers."""

import threading
import time

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from agent.core import wire
from agent.core.wire import Topics
from tests.evidence.handover import SITE
from tests.receiver.rig import chunks, done

WAIT_S = 15.0


class PahoDevice:
    """One connection; publishes are QoS 1 and wait for nothing."""

    def __init__(self, port, device):
        self.device = device
        self.topics = Topics(SITE, device.name)
        self.received = []
        self._changed = threading.Condition()
        self._subscribed = threading.Event()
        self.client = Client(
            CallbackAPIVersion.VERSION2, device.name, protocol=MQTTProtocolVersion.MQTTv5
        )
        self.client.max_inflight_messages_set(100)
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert self._subscribed.wait(WAIT_S)

    def _on_connect(self, client, *_):
        topics = (self.topics.receipt, *self.topics.file_down)
        client.subscribe([(topic, 1) for topic in topics])

    def _on_message(self, _client, _userdata, message):
        with self._changed:
            self.received.append((message.topic, message.payload))
            self._changed.notify_all()

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()

    def send(self, part, content):
        content = wire.encode(content) if isinstance(content, dict) else content
        return self.client.publish(f"{self.topics.root}/{part}", content, qos=1)

    def wait(self, schema, topic, count=1, timeout_s=WAIT_S):
        """Give the answers on a topic once there are `count` of them."""
        found = self.find(schema, topic, timeout_s, count)
        assert len(found) >= count, f"{len(found)} of {count} on {topic}"
        return found

    def find(self, schema, topic, timeout_s, count=1):
        """Give the answers on a topic after `timeout_s`, sooner once there are `count`."""
        until_s = time.monotonic() + timeout_s
        with self._changed:
            while True:
                found = [content for name, content in self.received if name == topic]
                left_s = until_s - time.monotonic()
                if len(found) >= count or left_s <= 0:
                    return [wire.decode(schema, content) for content in found]
                self._changed.wait(left_s)

    def event(self, message, count=1):
        """Send an event and give the row receipts so far."""
        self.send("event/zone_enter", message)
        return self.wait("row_receipt", self.topics.receipt, count)

    def ask(self, offer, part, count=1):
        """Send an offer or a done and give the `need` so far."""
        document = offer if part == "offer" else done(offer)
        self.send(f"file/{offer['fid']}/{part}", document)
        return self.wait("need", self.topics.file(offer["fid"], "need"), count)

    def chunks(self, offer, content, spans=None, size=16_384):
        for first, last in spans or [(0, len(content))]:
            for at, part in chunks(content[first:last], size):
                self.send(f"file/{offer['fid']}/{first + at}", part)

    def done(self, offer, count=1):
        """Say done and give the receipts so far."""
        self.send(f"file/{offer['fid']}/done", done(offer))
        return self.wait("file_receipt", self.topics.file(offer["fid"], "receipt"), count)
