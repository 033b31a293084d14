"""Keys: made once, private to us; signatures that fit one payload of one type only."""

import base64
import os
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from agent.core.errors import ConfigError, IntegrityError
from agent.evidence.keys import DeviceKey, PublicKey, envelope, open_envelope, pae

TYPE = "application/vnd.test+json"


@pytest.fixture
def key(tmp_path):
    return DeviceKey.load_or_create(tmp_path / "keys" / "device.key")


def write(path, content, mode=0o600):
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_key_is_made_once_for_us_alone_and_its_public_half_for_all(tmp_path):
    path = tmp_path / "keys" / "device.key"
    first = DeviceKey.load_or_create(path)
    again = DeviceKey.load_or_create(path)
    assert first.keyid == again.keyid
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"BEGIN PRIVATE KEY" in path.read_bytes()
    public = PublicKey.load(tmp_path / "keys" / "device.pub")
    assert public.keyid == first.keyid
    assert stat.S_IMODE((tmp_path / "keys" / "device.pub").stat().st_mode) & 0o444


def test_open_umask_does_not_open_the_key(tmp_path):
    before = os.umask(0)
    try:
        DeviceKey.load_or_create(tmp_path / "device.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "device.key").stat().st_mode) == 0o600


def test_lost_public_half_is_written_again(tmp_path):
    made = DeviceKey.load_or_create(tmp_path / "device.key")
    (tmp_path / "device.pub").unlink()
    DeviceKey.load_or_create(tmp_path / "device.key")
    assert PublicKey.load(tmp_path / "device.pub") == made.public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_key_that_others_may_read_is_refused(tmp_path, mode):
    path = tmp_path / "device.key"
    DeviceKey.load_or_create(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=rf"device\.key: mode {mode:04o}.*allowed: 0600"):
        DeviceKey.load_or_create(path)


def other_private(encryption=None):
    key = Ed25519PrivateKey.generate() if encryption else ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"],
)
def test_file_that_is_no_key_is_refused_by_name(tmp_path, content):
    with pytest.raises(ConfigError, match=r"device\.key: .*Ed25519 in PEM form"):
        DeviceKey.load_or_create(write(tmp_path / "device.key", content))
    with pytest.raises(ConfigError, match=r"device\.pub: .*Ed25519 in PEM form"):
        PublicKey.load(write(tmp_path / "device.pub", content))


def test_keys_of_other_kinds_and_locked_keys_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"EllipticCurvePrivateKey|ECPrivateKey"):
        DeviceKey.load_or_create(write(tmp_path / "a.key", other_private()))
    locked = other_private(BestAvailableEncryption(b"secret"))
    with pytest.raises(ConfigError, match="no private key") as caught:
        DeviceKey.load_or_create(write(tmp_path / "b.key", locked))
    assert "secret" not in str(caught.value)
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ConfigError, match="Ed25519 in PEM form"):
        PublicKey.load(write(tmp_path / "c.pub", pem))


def test_missing_and_unreadable_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.pub: No such file"):
        PublicKey.load(tmp_path / "none.pub")
    (tmp_path / "folder.key").mkdir(mode=0o700)
    with pytest.raises(ConfigError, match=r"folder\.key: Is a directory"):
        DeviceKey.load_or_create(tmp_path / "folder.key")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"device\.key"):
        DeviceKey.load_or_create(tmp_path / "file" / "device.key")


def test_pae_is_the_one_of_the_dsse_protocol():
    """The example of the DSSE protocol description, section "signature definition"."""
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_signature_fits_one_payload_one_type_and_one_key(key, tmp_path):
    other = DeviceKey.load_or_create(tmp_path / "other.key")
    signature = key.sign(TYPE, b"payload")
    assert key.public.is_signed(TYPE, b"payload", signature)
    assert not key.public.is_signed(TYPE, b"payloae", signature)
    assert not key.public.is_signed(TYPE + "x", b"payload", signature)
    assert not other.public.is_signed(TYPE, b"payload", signature)


@pytest.mark.parametrize("signature", ["", "A", "AAAA", "A" * 86 + "==", "ä" * 88, "\ud800" * 88])
def test_text_that_is_no_signature_does_not_fit(key, signature):
    assert not key.public.is_signed(TYPE, b"payload", signature)


def test_signature_has_one_text_only(key):
    """Base64 leaves four spare bits before `==`; a text with one of them set is another text."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    good = key.sign(TYPE, b"payload")
    twin = good[:85] + letters[letters.index(good[85]) | 1] + "=="
    assert base64.b64decode(twin) == base64.b64decode(good)
    assert twin != good
    assert not key.public.is_signed(TYPE, b"payload", twin)


@given(payload=st.binary(max_size=200))
def test_envelope_gives_back_what_was_put_in(payload):
    signer = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
    assert open_envelope(envelope(signer, TYPE, payload), TYPE, signer.public) == payload


def test_envelope_says_what_is_wrong(key, tmp_path):
    other = DeviceKey.load_or_create(tmp_path / "other.key")
    good = envelope(key, TYPE, b"payload")
    wrong = {
        "payload type 'text/plain'": {"payloadType": "text/plain"},
        "payload: not base64": {"payload": "*"},
        "does not fit the payload": {"payload": base64.b64encode(b"payloae").decode()},
        f"wanted: {key.keyid}": {"signatures": envelope(other, TYPE, b"payload")["signatures"]},
        "signature: made by ''": {"signatures": []},
    }
    for words, change in wrong.items():
        with pytest.raises(IntegrityError, match=words):
            open_envelope(good | change, TYPE, key.public)


def test_one_right_signature_among_others_is_enough(key, tmp_path):
    other = DeviceKey.load_or_create(tmp_path / "other.key")
    good = envelope(key, TYPE, b"payload")
    both = envelope(other, TYPE, b"payload")["signatures"] + good["signatures"]
    assert open_envelope(good | {"signatures": both}, TYPE, key.public) == b"payload"


def test_key_id_is_the_first_half_of_the_hash_of_the_raw_key():
    signer = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
    assert signer.keyid == "ed25519:34750f98bd59fcfc946da45aaabe933b"
