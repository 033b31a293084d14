"""Manifests: sealed once, canonical, and nothing in them that a hand-over needs for itself."""

import base64
import json

import pytest

from agent.core.clock import SimClock
from agent.core.errors import HashMismatch, IntegrityError, MalformedMessage
from agent.evidence import manifest
from agent.evidence.hashing import LEAF_BYTES, LeafHasher
from agent.evidence.keys import DeviceKey, envelope
from tests.evidence.handover import entry, facts, sealed


@pytest.fixture
def key(tmp_path):
    return DeviceKey.load_or_create(tmp_path / "device.key")


def test_sealed_manifest_stands_in_the_folder_and_is_read_with_the_public_key(tmp_path, key):
    folder, signed = sealed(tmp_path / "clip", {"clip-1.mp4": b"video", "path.json": b"[]"}, key)
    assert json.loads((folder / "manifest.json").read_bytes()) == signed
    document = manifest.read(signed, key.public)
    assert document["clip_id"] == "c" * 32
    assert [(item["name"], item["role"]) for item in document["files"]] == [
        ("clip-1.mp4", "clip"),
        ("path.json", "path"),
    ]
    assert document["sealed_utc_ms"] == SimClock().utc_ns() // 1_000_000
    assert not list(folder.glob("*.tmp"))


def test_anyone_can_read_it_without_our_code(tmp_path, key):
    _, signed = sealed(tmp_path / "clip", {"clip-1.mp4": b"video"}, key)
    payload = base64.b64decode(signed["payload"])
    assert (
        payload
        == json.dumps(
            json.loads(payload), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        ).encode()
    )


def test_same_facts_give_the_same_bytes(tmp_path, key):
    one = sealed(tmp_path / "a", {"clip-1.mp4": b"video"}, key)[0] / "manifest.json"
    two = sealed(tmp_path / "b", {"clip-1.mp4": b"video"}, key)[0] / "manifest.json"
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", ".hidden", "a/b", "a\n", "", "a" * 128])
def test_names_with_folders_are_refused(tmp_path, key, name):
    (tmp_path / "x").write_bytes(b"")
    bad = manifest.FileEntry(name, "clip", "video/mp4", LeafHasher().finish())
    with pytest.raises(MalformedMessage, match="name"):
        manifest.seal(tmp_path, facts(), [bad], key, SimClock())


@pytest.mark.parametrize("name", ["manifest.json", "receipt-clip-1.mp4.json", "clip-1.mp4.tmp"])
def test_names_that_a_hand_over_needs_itself_are_refused(tmp_path, key, name):
    bad = manifest.FileEntry(name, "clip", "video/mp4", LeafHasher().finish())
    with pytest.raises(MalformedMessage, match="allowed: each name once"):
        manifest.seal(tmp_path, facts(), [bad], key, SimClock())


def test_name_that_stands_twice_is_refused(tmp_path, key):
    (tmp_path / "clip-1.mp4").write_bytes(b"video")
    twice = [entry(tmp_path / "clip-1.mp4")] * 2
    with pytest.raises(MalformedMessage, match="each name once"):
        manifest.seal(tmp_path, facts(), twice, key, SimClock())


def test_signed_document_that_is_not_canonical_is_refused(tmp_path, key):
    _, signed = sealed(tmp_path / "clip", {"clip-1.mp4": b"video"}, key)
    payload = base64.b64decode(signed["payload"])
    for changed in (
        json.dumps(json.loads(payload)).encode(),
        payload.replace(b'"size_bytes":5', b'"size_bytes":5.0'),
        payload.replace(b'"sv":1', b'"sv":1,"sv":1'),
    ):
        assert changed != payload
        forged = envelope(key, manifest.PAYLOAD_TYPE, changed)
        with pytest.raises(MalformedMessage, match="manifest: "):
            manifest.read(forged, key.public)


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b"1e999"])
def test_signed_nonsense_is_refused(key, payload):
    with pytest.raises(MalformedMessage, match="manifest"):
        manifest.read(envelope(key, manifest.PAYLOAD_TYPE, payload), key.public)


def test_manifest_under_another_type_is_refused(tmp_path, key):
    _, signed = sealed(tmp_path / "clip", {"clip-1.mp4": b"video"}, key)
    with pytest.raises(IntegrityError, match="payload type"):
        manifest.read(signed | {"payloadType": "application/json"}, key.public)


def hashed(content):
    hasher = LeafHasher()
    hasher.update(content)
    return hasher.finish()


def described(content, key, tmp_path):
    _, signed = sealed(tmp_path / "clip", {"clip-1.mp4": content}, key)
    return manifest.read(signed, key.public)["files"][0]


def test_difference_is_named_by_its_leaf(tmp_path, key):
    content = bytes(2 * LEAF_BYTES + 10)
    wanted = described(content, key, tmp_path)
    manifest.check_file(hashed(content), wanted)
    changed = bytearray(content)
    changed[LEAF_BYTES + 5] ^= 1
    with pytest.raises(HashMismatch, match=f"leaf 1, bytes {LEAF_BYTES} to {2 * LEAF_BYTES - 1}"):
        manifest.check_file(hashed(changed), wanted)
    changed = bytearray(content)
    changed[-1] ^= 1
    with pytest.raises(HashMismatch, match=f"leaf 2, bytes {2 * LEAF_BYTES} to {len(content) - 1}"):
        manifest.check_file(hashed(changed), wanted)
    with pytest.raises(HashMismatch, match="bytes; manifest"):
        manifest.check_file(hashed(content[:-1]), wanted)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"leaves": []}, "1 leaves; manifest: 0"),
        ({"leaf_root": "0" * 64}, "leaf_root"),
        ({"sha256": "0" * 64}, "sha256"),
    ],
)
def test_manifest_that_contradicts_itself_is_found(tmp_path, key, change, words):
    wanted = described(b"video", key, tmp_path) | change
    with pytest.raises(HashMismatch, match=words):
        manifest.check_file(hashed(b"video"), wanted)
