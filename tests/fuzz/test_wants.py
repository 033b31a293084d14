"""What the centre has retained for a device, spoiled: no key and no store changes by it."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import wire
from agent.evidence import rotation
from agent.evidence.keys import DeviceKey, envelope
from agent.evidence.receipt import sign_store
from tests.evidence.handover import DEVICE, SITE
from tests.fuzz.hostile import RUBBISH, VALUES, examples, is_harmless, spoiled
from tests.scenarios.field import Field

STORE = {"device": DEVICE, "begun_utc_ms": 1, "issued_utc_ms": 5, "receiver": "centre-1"}


class Listener:
    """The device's side of `want/`, called at once."""

    def __init__(self, folder, store):
        self.field = Field(folder, store, 1)
        self.field.seal(clip_mp4=b"video")
        self.wants = self.field.uplink().wants
        self.new = DeviceKey.load_or_create(folder / "new.key")
        self.hear("store", wire.encode(sign_store(STORE | {"store": "a" * 32}, self.key)))
        self.before = self.state()

    @property
    def key(self):
        return self.field.centre_key

    def hear(self, name, payload):
        self.wants._take(name, payload)

    def state(self):
        with self.field.store.reading() as connection:
            known = connection.execute("SELECT value FROM meta WHERE key = 'centre_store'")
            return known.fetchone()[0], self.field.keys.all, self.field.custody_kinds()


@pytest.fixture
def listener(store, tmp_path):
    return Listener(tmp_path, store)


@given(data=st.data())
@examples(80)
def test_a_word_on_the_store_with_one_thing_wrong_changes_nothing(listener, data):
    good = sign_store(STORE | {"store": "b" * 32}, listener.key)
    content = data.draw(spoiled(good) | RUBBISH)
    if is_harmless("store", content, good):
        return
    ignored = listener.wants.ignored
    listener.hear("store", content)
    assert listener.state() == listener.before
    assert listener.wants.ignored == ignored + 1


@given(data=st.data(), part=st.sampled_from(("outside", "inside")))
@examples(80)
def test_a_rotation_with_one_thing_wrong_changes_nothing(listener, data, part):
    step = rotation.sign(listener.key, listener.new.public, SITE, 1, 0)
    good = {"sv": 1, "rotations": [step]}
    if part == "outside":
        content = data.draw(spoiled(good) | RUBBISH)
        if is_harmless("receiver_keys", content, good):
            return
    else:  # signed by the pinned key, but for what no centre would sign
        payload = json.loads(base64.b64decode(step["payload"]))
        name = data.draw(st.sampled_from(("site", "old_key", "new_key", "sv")))
        payload[name] = data.draw(st.sampled_from(VALUES))
        raw = json.dumps(payload).encode()
        signed = envelope(listener.key, rotation.PAYLOAD_TYPE, raw)
        content = json.dumps({"sv": 1, "rotations": [signed]}).encode()
        if name == "sv" and payload[name] == 1:
            return
    ignored = listener.wants.ignored
    listener.hear("receiver_key", content)
    assert listener.state() == listener.before
    assert listener.wants.ignored == ignored + 1
