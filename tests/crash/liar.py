"""A receiver that lies: `python -m tests.crash.liar PORT STORE LIE`, until it is killed.

It answers every offer, done and event of every device at once, with the lie that it was told.
"""

import base64
import json
import sys
from pathlib import Path

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from agent.core.clock import RealClock
from agent.evidence.keys import DeviceKey
from agent.evidence.receipt import sign_file_receipt, sign_row_receipt

FAR = 1 << 50
DAY_MS = 86_400_000
LIES = ("wrong-signature", "other-key", "other-file", "absurd-need", "endless-need")


class Liar:
    """Signs with the true key of the receiver, or does not, as the lie wants."""

    def __init__(self, store: Path, lie: str, client: Client) -> None:
        self._lie, self._client = lie, client
        self._clock = RealClock()
        true_key = DeviceKey.load_or_create(store / "receiver.key")
        strange = DeviceKey.load_or_create(store.parent / "stranger.key")
        self._key = strange if lie == "other-key" else true_key
        self._offers: dict[str, dict] = {}

    def hear(self, topic: str, payload: bytes) -> None:
        """Answer a message of a device, if it is one that wants an answer."""
        _, _, site, device, *rest = topic.split("/")
        root = f"outpost/1/{site}/{device}"
        if rest[0] == "event" and payload:
            self._say(f"{root}/receipt", self._row_receipt(device, json.loads(payload)["id"]))
        elif rest[0] == "file" and rest[-1] in ("offer", "done"):
            document = json.loads(payload)
            self._offers.setdefault(document["fid"], document)
            offer = {**self._offers[document["fid"]], "device": device}
            if self._lie.endswith("need"):
                self._say(f"{root}/file/{offer['fid']}/need", self._need(offer))
            else:
                self._say(f"{root}/file/{offer['fid']}/receipt", self._file_receipt(offer))

    def _need(self, offer: dict) -> dict:
        ranges = [[0, offer["size_bytes"]]]
        if self._lie == "absurd-need":
            ranges = [[FAR, FAR + 5], [7, 3], [offer["size_bytes"], offer["size_bytes"] + 9]]
        fixed = {"sv": 1, "max_chunk_bytes": 65_536, "rate_bytes_per_s": 0}
        return {"fid": offer["fid"], "ranges": ranges, **fixed}

    def _file_receipt(self, offer: dict) -> dict:
        sha256 = offer["sha256"]
        if self._lie == "other-file":
            others = [item["sha256"] for item in self._offers.values() if item is not offer]
            sha256 = next((item for item in others if item != sha256), "0" * 64)
        now_ms = self._clock.utc_ns() // 1_000_000
        fields = {
            "fid": offer["fid"],
            "device": offer["device"],
            "sha256": sha256,
            "size_bytes": offer["size_bytes"],
            "stored_utc_ms": now_ms,
            "copies": 1,
            "retention_until_utc_ms": now_ms + DAY_MS,
            "receiver": "receiver",
        }
        return self._spoil(sign_file_receipt(fields, self._key))

    def _row_receipt(self, device: str, message_id: str) -> dict:
        if self._lie == "other-file":
            device = "cam-9999"
        stored_utc_ms = self._clock.utc_ns() // 1_000_000
        fields = {"device": device, "ids": [message_id], "stored_utc_ms": stored_utc_ms}
        return self._spoil(sign_row_receipt({**fields, "receiver": "receiver"}, self._key))

    def _spoil(self, document: dict) -> dict:
        if self._lie != "wrong-signature":
            return document
        signature = bytearray(base64.b64decode(document["sig"]))
        signature[10] ^= 1
        return {**document, "sig": base64.b64encode(signature).decode()}

    def _say(self, topic: str, document: dict) -> None:
        self._client.publish(topic, json.dumps(document), qos=1)


def main() -> None:
    """Lie until killed."""
    port, store, lie = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    client = Client(CallbackAPIVersion.VERSION2, "liar", protocol=MQTTProtocolVersion.MQTTv5)
    liar = Liar(store, lie, client)
    client.on_connect = lambda *_: client.subscribe("outpost/#", qos=1)
    client.on_message = lambda _client, _data, message: liar.hear(message.topic, message.payload)
    client.connect("127.0.0.1", port)
    client.loop_forever()


if __name__ == "__main__":
    main()
