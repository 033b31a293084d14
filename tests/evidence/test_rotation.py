"""A chain of the centre's keys is read whole or not at all, and only ever grows."""

import itertools

import pytest

from agent.core import wire
from agent.core.errors import IntegrityError, ReceiptInvalid, StorageError
from agent.evidence import receipt, rotation
from agent.evidence.centrekeys import FILE_NAME, CentreKeys
from agent.evidence.keys import DeviceKey
from agent.evidence.rotation import Chain

SITE = "plaza"


@pytest.fixture
def keys(tmp_path):
    return [DeviceKey.load_or_create(tmp_path / f"{number}.key") for number in range(4)]


def steps(keys, site=SITE, first=1, not_before=0):
    pairs = itertools.pairwise(keys)
    return [
        rotation.sign(old, new.public, site, number, not_before)
        for number, (old, new) in enumerate(pairs, first)
    ]


def signed(key, utc_ms=5):
    fields = {"device": "cam-1", "store": "a" * 32, "begun_utc_ms": 1, "issued_utc_ms": utc_ms}
    return receipt.sign_store({**fields, "receiver": "centre-1"}, key)


def checked(pinned, document):
    check = lambda found, key: receipt.check_store(found, key, "cam-1")  # noqa: E731
    return pinned.check(document, document["issued_utc_ms"], check)


class Box:
    """A device's pinned keys and what was noted of them."""

    def __init__(self, folder, first):
        self.folder, self.first, self.noted = folder, first, []

    def open(self):
        pinned = CentreKeys(self.first, SITE, self.folder, self.note)
        pinned.open()
        return pinned

    def note(self, kind, subject, detail):
        wire.canonical(dict(detail))
        self.noted.append((kind, subject))


@pytest.fixture
def box(tmp_path, keys):
    folder = tmp_path / "box"
    folder.mkdir()
    return Box(folder, keys[0].public)


def test_a_chain_leads_from_the_configured_key_to_the_newest(keys):
    publics = tuple(key.public for key in keys)
    assert Chain.read(publics[0], steps(keys), SITE).keys == publics
    assert Chain.read(publics[2], steps(keys), SITE).keys == publics[2:]
    assert Chain.read(publics[0], [], SITE).keys == publics[:1]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda keys: steps(keys[1:3]), "configured"),
        (lambda keys: steps(keys[:3], site="other"), "of site 'other'"),
        (lambda keys: steps(keys[:2]) + steps(keys[2:4], first=2), "made by"),
        (lambda keys: steps(keys[:2]) + steps(keys[1:3], first=3), "number 3; wanted: 2"),
        (lambda keys: steps([keys[0], keys[1], keys[0]]), "back to"),
        (lambda keys: steps([keys[0], keys[0]]), "back to"),
        (lambda keys: [forged(keys)], "does not fit"),
        (lambda keys: [{**steps(keys[:2])[0], "payload": "e30="}], "rotation"),
        (lambda keys: [{**steps(keys[:2])[0], "payload": "!"}], "rotation"),
    ],
)
def test_what_is_wrong_with_a_chain_is_named(make, words, keys):
    with pytest.raises(IntegrityError, match=words):
        Chain.read(keys[0].public, make(keys), SITE)


def forged(keys):
    """A step that says it is of the first key, signed by another in its name."""
    good, other = steps(keys[:2])[0], steps(keys[2:4])[0]
    keyid = good["signatures"][0]["keyid"]
    return {**good, "signatures": [{"keyid": keyid, "sig": other["signatures"][0]["sig"]}]}


def test_the_new_key_takes_over_with_what_it_signs_first_and_stays(box, keys):
    pinned = box.open()
    old, new = signed(keys[0]), signed(keys[1])
    with pytest.raises(ReceiptInvalid, match="pinned"):
        checked(pinned, new)
    assert pinned.follow(steps(keys[:2]))
    assert not pinned.follow(steps(keys[:2]))
    assert checked(pinned, old) == old, "the old one signs until the new one does"
    assert checked(pinned, new) == new
    for again in (pinned, box.open()):
        assert again.current == keys[1].public
        assert again.all == (keys[0].public, keys[1].public)
        with pytest.raises(ReceiptInvalid, match="retired"):
            checked(again, old)
    assert box.noted == [
        ("receiver.key_rotated", keys[1].keyid),
        ("receiver.key_retired", keys[0].keyid),
    ]


def test_a_device_that_was_away_follows_several_steps_at_once(box, keys):
    pinned = box.open()
    pinned.follow(steps(keys))
    assert checked(pinned, signed(keys[3]))
    assert box.noted[-3:] == [("receiver.key_retired", key.keyid) for key in keys[:3]]


def test_a_key_does_not_count_before_its_time(box, keys):
    pinned = box.open()
    pinned.follow(steps(keys[:2], not_before=1000))
    with pytest.raises(ReceiptInvalid, match="counts from 1000; signed at 999"):
        checked(pinned, signed(keys[1], 999))
    assert checked(pinned, signed(keys[0], 999))
    assert checked(pinned, signed(keys[1], 1000))


def test_older_chains_and_forks_change_nothing(box, keys):
    pinned = box.open()
    pinned.follow(steps(keys[:3]))
    for chain, words in (
        (steps(keys[:2]), "an older chain"),
        (steps([keys[0], keys[3]]), "another chain"),
        ([], "an older chain"),
    ):
        with pytest.raises(IntegrityError, match=words):
            pinned.follow(chain)
    assert box.open().all == tuple(key.public for key in keys[:3])


def test_what_is_pinned_counts_only_from_the_configured_key_on(box, keys):
    pinned = box.open()
    pinned.follow(steps(keys[:3]))
    checked(pinned, signed(keys[1]))
    box.first = keys[1].public  # the configuration has followed
    assert (box.open().current, box.open().all[-1]) == (keys[1].public, keys[2].public)
    box.first = keys[3].public  # the configuration says another centre
    assert box.open().all == (keys[3].public,)


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b'{"rotations": [], "used": "x"}', b"\xff"])
def test_a_damaged_file_of_pinned_keys_leaves_the_configured_one(damage, box, keys):
    pinned = box.open()
    pinned.follow(steps(keys[:2]))
    (box.folder / FILE_NAME).write_bytes(damage)
    assert box.open().all == (keys[0].public,)
    assert box.open().follow(steps(keys[:2])), "the centre says it again"


def test_a_key_that_cannot_be_pinned_on_the_disk_does_not_count(box, keys):
    pinned = box.open()
    (box.folder / FILE_NAME).mkdir()
    with pytest.raises(StorageError):
        pinned.follow(steps(keys[:2]))
    assert pinned.all == (keys[0].public,)
    (box.folder / FILE_NAME).rmdir()
    pinned.follow(steps(keys[:2]))
    (box.folder / FILE_NAME).unlink()
    (box.folder / FILE_NAME).mkdir()
    with pytest.raises(ReceiptInvalid):
        checked(pinned, signed(keys[1]))
    assert pinned.current == keys[0].public
