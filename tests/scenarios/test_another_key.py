"""The centre is replaced by one with another key: devices follow what the old key has signed."""

import os
import shutil

import pytest

from agent.core import wire
from agent.core.model import Lane, Message
from agent.evidence import rotation
from agent.evidence.keys import DeviceKey
from agent.evidence.verify import verify
from agent.receiver import rotate
from agent.receiver.identity import ROTATIONS
from tests.delivery.centre import until
from tests.evidence.handover import SITE
from tests.receiver.rig import event
from tests.scenarios.field import Field

pytestmark = pytest.mark.broker


@pytest.fixture
def field(embedded, store, tmp_path):
    return Field(tmp_path, store, embedded.port)


def all_receipted(field):
    return set(field.states()) == {"receipted"}


def alarm(field):
    body = event(len(field.custody_kinds()), state="closed")
    field.outbox.put(Message(Lane.ALARM, "event/zone_enter", body, needs_receipt=True))


def test_a_key_changed_in_place_is_followed_and_old_receipts_still_verify(field):
    first = field.seal(clip_mp4=os.urandom(50_000))[0]
    with field.centre(), field.uplink(), field.transfers():
        assert until(lambda: all_receipted(field))
    old = field.centre_key
    rotate.in_place(field.centre_dir, SITE, field.clock)
    new = DeviceKey.load_or_create(field.centre_dir / "receiver.key")
    second = field.seal(clip_mp4=os.urandom(60_000))[0]
    alarm(field)
    with field.centre(new) as centre, field.uplink(), field.transfers():
        assert until(lambda: all_receipted(field))
        assert until(lambda: field.outbox.depths()["alarm"] == 0)
        folders = [centre.folder(first), centre.folder(second)]
    field.restart()
    assert field.keys.current == new.public
    kinds = [kind for kind in field.custody_kinds() if kind.startswith("receiver.")]
    assert kinds == ["receiver.key_rotated", "receiver.key_retired"]
    for folder, key in zip(folders, (old, new), strict=True):
        assert verify(folder, field.key.public, key.public).ok
        assert verify(folder, field.key.public, old.public, new.public).ok
    assert not verify(folders[1], field.key.public, old.public).ok
    assert field.custody_kinds().count("centre.store_lost") == 0


def test_another_receiver_with_an_empty_disk_and_a_key_signed_by_the_old_one(field, tmp_path):
    fid = field.seal(clip_mp4=os.urandom(50_000))[0]
    with field.centre(), field.uplink(), field.transfers():
        assert until(lambda: all_receipted(field))
    new = DeviceKey.load_or_create(tmp_path / "new" / "receiver.key")
    chain = rotate.hand_over(
        field.centre_dir, SITE, new.public, tmp_path / "new" / ROTATIONS, field.clock
    )
    shutil.rmtree(field.centre_dir)
    chain.parent.rename(field.centre_dir)
    with field.centre(new) as centre, field.uplink(), field.transfers():
        assert until(lambda: "centre.store_lost" in field.custody_kinds())
        assert until(lambda: all_receipted(field))
        assert centre.stored(fid) == field.content(fid)
        assert verify(centre.folder(fid), field.key.public, new.public).ok


def test_a_receiver_whose_key_nobody_has_signed_gets_nothing_forgotten(field, tmp_path):
    fid = field.seal(clip_mp4=os.urandom(50_000))[0]
    alarm(field)
    stranger = DeviceKey.load_or_create(tmp_path / "stranger.key")
    with field.centre(stranger), field.uplink() as uplink, field.transfers() as transfers:
        assert until(lambda: transfers.worker.status().bad_messages > 0)
        assert until(lambda: uplink.worker.status().bad_receipts > 0)
        assert until(lambda: uplink.wants.ignored > 0)
        assert field.state(fid) == "waiting"
        assert field.outbox.depths()["alarm"] == 1
    with field.centre(), field.uplink(), field.transfers():
        assert until(lambda: all_receipted(field))


def test_a_rotation_of_another_site_is_refused(field, tmp_path):
    new = DeviceKey.load_or_create(tmp_path / "new.key")
    step = rotation.sign(field.centre_key, new.public, "elsewhere", 1, 0)
    document = {"sv": 1, "rotations": [step]}
    with field.uplink() as uplink:
        uplink.wants.hear(uplink.wants.topic.replace("+", "receiver_key"), wire.encode(document))
        assert until(lambda: uplink.wants.ignored == 1)
    assert field.keys.all == (field.centre_key.public,)
