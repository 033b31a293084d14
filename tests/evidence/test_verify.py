"""`outpost verify`: whatever was changed in a hand-over or a log is found, and named."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core import wire
from agent.core.clock import SimClock
from agent.core.errors import ConfigError
from agent.evidence import custody, manifest
from agent.evidence.hashing import LEAF_BYTES
from agent.evidence.keys import DeviceKey, envelope
from agent.evidence.receipt import file_name, sign_file_receipt
from agent.evidence.verify import verify
from tests.evidence.handover import sealed

KEY = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
CENTRE = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))
OTHER = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"\x03" * 32))
CONTENTS = {
    "clip-1.mp4": random.Random(1).randbytes(3000),
    "snapshot.jpg": random.Random(2).randbytes(500),
    "path.json": b"[[1700000000000,0.5,0.5]]",
}


@pytest.fixture
def clip(tmp_path):
    return sealed(tmp_path / "clips" / ("c" * 32), CONTENTS, KEY)[0]


def give_receipts(folder, key=CENTRE, **changes):
    document = manifest.read(json.loads((folder / "manifest.json").read_bytes()), KEY.public)
    for entry in document["files"]:
        fields = {
            "fid": "f" * 32,
            "device": document["device"],
            "sha256": entry["sha256"],
            "size_bytes": entry["size_bytes"],
            "stored_utc_ms": 1,
            "copies": 1,
            "retention_until_utc_ms": 2,
            "receiver": "centre-1",
        }
        signed = sign_file_receipt(fields | changes, key)
        (folder / file_name(entry["name"])).write_bytes(wire.encode(signed))


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_untouched_hand_over_is_ok_by_folder_by_manifest_and_by_its_parent(clip):
    for path in (clip, clip / "manifest.json", clip.parent):
        report = verify(path, KEY.public)
        assert report.ok, report.text()
        assert report.checked == 1
        assert "verified: 1, nothing wrong" in report.text()
    assert json.loads(json.dumps(report.document()))["ok"] is True
    assert [check["ok"] for check in report.document()["checks"]] == [True] * 4


@given(data=st.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_flipped_bit_of_any_file_is_found_and_its_file_named(clip, data):
    name = data.draw(st.sampled_from(sorted([*CONTENTS, "manifest.json"])))
    path = clip / name
    before = path.read_bytes()
    flip(path, data.draw(st.integers(0, len(before) * 8 - 1)))
    report = verify(clip, KEY.public)
    path.write_bytes(before)
    assert not report.ok
    assert name in report.first_wrong


def test_every_byte_of_the_manifest_counts(clip):
    """The ends of base64 hold spare bits that a lenient decoder lets pass: all 8 bits there."""
    path = clip / "manifest.json"
    before = path.read_bytes()
    ends = [at for at in range(len(before)) if before[at : at + 2] in (b'="', b"==")]
    assert ends
    tail = {at + step for at in ends for step in range(-3, 2)}
    bits = {at * 8 + at % 8 for at in range(len(before))}
    bits |= {at * 8 + bit for at in tail for bit in range(8)}
    missed = []
    for bit in sorted(bits):
        flip(path, bit)
        if verify(path, KEY.public).ok:
            missed.append(bit)
        path.write_bytes(before)
    assert missed == []


def test_changed_leaf_is_named_with_its_bytes(tmp_path):
    folder, _ = sealed(tmp_path / "big", {"clip-1.mp4": bytes(3 * LEAF_BYTES + 5)}, KEY)
    flip(folder / "clip-1.mp4", (LEAF_BYTES + 17) * 8)
    said = verify(folder, KEY.public).first_wrong
    assert f"clip-1.mp4: leaf 1, bytes {LEAF_BYTES} to {2 * LEAF_BYTES - 1}" in said


def test_swapped_leaves_are_found_at_the_first(tmp_path):
    content = bytes(LEAF_BYTES) + b"\x01" * LEAF_BYTES + b"end"
    folder, _ = sealed(tmp_path / "big", {"clip-1.mp4": content}, KEY)
    swapped = b"\x01" * LEAF_BYTES + bytes(LEAF_BYTES) + b"end"
    (folder / "clip-1.mp4").write_bytes(swapped)
    assert "leaf 0, bytes 0 to" in verify(folder, KEY.public).first_wrong


@pytest.mark.parametrize(
    "change", [b"", CONTENTS["clip-1.mp4"][:-1], CONTENTS["clip-1.mp4"] + b"x"]
)
def test_shorter_and_longer_files_are_found(clip, change):
    (clip / "clip-1.mp4").write_bytes(change)
    assert (
        f"clip-1.mp4: {len(change)} bytes; manifest: 3000" in verify(clip, KEY.public).first_wrong
    )


def test_files_that_changed_places_are_found(tmp_path):
    folder, _ = sealed(tmp_path / "two", {"clip-1.mp4": b"one", "clip-2.mp4": b"two"}, KEY)
    (folder / "clip-1.mp4").write_bytes(b"two")
    (folder / "clip-2.mp4").write_bytes(b"one")
    report = verify(folder, KEY.public)
    assert [bool(check.wrong) for check in report.checks] == [False, True, True]


def test_missing_and_extra_files_are_found(clip):
    (clip / "snapshot.jpg").unlink()
    assert "snapshot.jpg: No such file" in verify(clip, KEY.public).first_wrong
    (clip / "snapshot.jpg").write_bytes(CONTENTS["snapshot.jpg"])
    (clip / "clip-2.mp4").write_bytes(b"")
    assert "clip-2.mp4: does not stand in the manifest" in verify(clip, KEY.public).first_wrong
    (clip / "clip-2.mp4").rename(clip / "receipt-other.mp4.json")
    assert "receipt-other.mp4.json: does not stand" in verify(clip, KEY.public).first_wrong


def test_link_or_pipe_in_the_place_of_a_file_is_found_and_never_opened(clip, tmp_path):
    (tmp_path / "elsewhere").write_bytes(CONTENTS["clip-1.mp4"])
    (clip / "clip-1.mp4").unlink()
    (clip / "clip-1.mp4").symlink_to(tmp_path / "elsewhere")
    assert "clip-1.mp4: no plain file" in verify(clip, KEY.public).first_wrong
    (clip / "clip-1.mp4").unlink()
    os.mkfifo(clip / "clip-1.mp4")
    assert "clip-1.mp4: no plain file" in verify(clip, KEY.public).first_wrong
    (clip / "manifest.json").unlink()
    os.mkfifo(clip / "manifest.json")
    assert "manifest.json: no plain file" in verify(clip, KEY.public).first_wrong


def test_folder_whose_manifest_is_gone_is_named_beside_the_others(clip):
    other, _ = sealed(clip.parent / ("d" * 32), CONTENTS, KEY, clip_id="d" * 32)
    assert verify(clip.parent, KEY.public).ok
    (other / "manifest.json").unlink()
    report = verify(clip.parent, KEY.public)
    assert report.first_wrong == f"{'d' * 32}: holds no manifest.json"
    assert report.checked == 1


def test_signature_of_another_key_is_refused(clip):
    assert f"wanted: {OTHER.keyid}" in verify(clip, OTHER.public).first_wrong
    document = json.loads((clip / "manifest.json").read_bytes())
    document["signatures"][0]["keyid"] = OTHER.keyid
    (clip / "manifest.json").write_text(json.dumps(document))
    assert "does not fit the payload" in verify(clip, OTHER.public).first_wrong


def test_payload_signed_as_something_else_is_refused(clip):
    document = json.loads((clip / "manifest.json").read_bytes())
    document["payloadType"] = custody.PAYLOAD_TYPE
    (clip / "manifest.json").write_text(json.dumps(document))
    assert "payload type" in verify(clip, KEY.public).first_wrong
    forged = envelope(KEY, custody.PAYLOAD_TYPE, b"{}") | {"payloadType": manifest.PAYLOAD_TYPE}
    (clip / "manifest.json").write_text(json.dumps(forged))
    assert "does not fit the payload" in verify(clip, KEY.public).first_wrong


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 200_000, b'{"payloadType":"\\ud800"}'],
)
def test_manifest_that_is_no_envelope_is_told_in_words(clip, content):
    (clip / "manifest.json").write_bytes(content)
    report = verify(clip, KEY.public)
    assert "manifest.json: not an envelope" in report.first_wrong
    report.text().encode()


@given(content=st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_for_a_manifest_a_receipt_or_a_log_are_only_wrong(clip, content):
    for name in ("manifest.json", file_name("clip-1.mp4"), "../log.jsonl"):
        before = (clip / name).read_bytes() if (clip / name).exists() else None
        (clip / name).write_bytes(content)
        report = verify(clip if "log" not in name else clip / name, KEY.public, CENTRE.public)
        assert not report.ok
        report.text().encode()
        if before is None:
            (clip / name).unlink()
        else:
            (clip / name).write_bytes(before)


def test_file_name_that_is_not_utf8_can_be_printed(clip):
    Path(os.fsdecode(os.fsencode(clip) + b"/\xff.mp4")).write_bytes(b"")
    report = verify(clip, KEY.public)
    assert "does not stand in the manifest" in report.text().encode().decode()


def test_receipts_are_checked_with_the_key_of_the_centre(clip):
    assert (
        "receipt-clip-1.mp4.json: No such file"
        in verify(clip, KEY.public, CENTRE.public).first_wrong
    )
    give_receipts(clip)
    assert verify(clip, KEY.public, CENTRE.public).ok
    assert verify(clip, KEY.public).ok
    assert f"pinned: {OTHER.keyid}" in verify(clip, KEY.public, OTHER.public).first_wrong


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sha256": "0" * 64}, "sha256"),
        ({"device": "cam-2"}, "device 'cam-2'"),
        ({"size_bytes": 1}, "size_bytes 1"),
    ],
)
def test_receipt_for_something_else_is_found(clip, change, words):
    give_receipts(clip, **change)
    report = verify(clip, KEY.public, CENTRE.public)
    assert "receipt-clip-1.mp4.json" in report.first_wrong
    assert words in report.first_wrong


def test_nothing_to_check_is_an_error_of_the_caller(tmp_path):
    with pytest.raises(ConfigError, match="no such file or folder"):
        verify(tmp_path / "none", KEY.public)
    with pytest.raises(ConfigError, match=r"holds no manifest\.json"):
        verify(tmp_path, KEY.public)


@pytest.fixture
def log(store, tmp_path):
    clock = SimClock()
    for number in range(6):
        store.write(
            lambda c, number=number: custody.append(c, clock, "clip.sealed", "x", {"n": number})
        )
    head = store.write(lambda c: custody.signed_head(c, KEY, clock, "cam-1"))
    with store.reading() as connection:
        entries = [dict(row) for row in connection.execute("SELECT * FROM custody ORDER BY seq")]
    path = tmp_path / "custody.jsonl"

    def write(rows, heads=(head,)):
        path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *heads]))
        return path

    return write, entries, head


def test_whole_log_with_its_head_is_ok(log):
    write, entries, head = log
    report = verify(write(entries), KEY.public)
    assert report.ok, report.text()
    assert "6 entries, unbroken" in report.text()
    assert "head of entry 6 signed by" in report.text()
    assert verify(write([head, *entries], ()), KEY.public).ok
    assert (
        "no signed head, so a cut end would not be seen"
        in verify(write(entries, ()), KEY.public).text()
    )


def test_edited_removed_reordered_and_cut_logs_are_found(log):
    write, entries, _ = log
    edited = [dict(entry) for entry in entries]
    edited[2]["detail"] = '{"n":99}'
    swapped = [*entries[:3], entries[4], entries[3], entries[5]]
    for rows, words in (
        (edited, "entry 3 was changed"),
        (entries[:2] + entries[3:], "entry 4 stands where 3 belongs"),
        (swapped, "entry 5 stands where 4 belongs"),
        (entries[1:], "entry 2 stands where 1 belongs"),
        (entries[:4], "ends at entry 4; signed: entry 6"),
    ):
        report = verify(write(rows), KEY.public)
        assert not report.ok
        assert words in report.first_wrong


def test_log_that_is_not_text_or_has_a_wrong_line_is_named_by_line(log, tmp_path):
    write, entries, _ = log
    path = write(entries, ())
    path.write_bytes(path.read_bytes() + b"{\n")
    assert "line 7 is not JSON" in verify(path, KEY.public).first_wrong
    path.write_bytes(b"7\n")
    assert "line 1 is no entry" in verify(path, KEY.public).first_wrong
    path.write_bytes(b"[" * 200_000)
    assert "line 1 is not JSON" in verify(path, KEY.public).first_wrong


def test_head_of_another_key_is_refused(log):
    write, entries, head = log
    assert "signature: made by" in verify(write(entries, (head,)), OTHER.public).first_wrong


def test_needs_neither_agent_nor_network(clip, tmp_path):
    """Only the standard library, cryptography and the schema checker are loaded."""
    (tmp_path / "device.pub").write_bytes(KEY.public.pem)
    script = (
        "import sys, socket; socket.socket = None\n"
        "from pathlib import Path\n"
        "from agent.evidence.keys import PublicKey\n"
        "from agent.evidence.verify import verify\n"
        "report = verify(Path(sys.argv[1]), PublicKey.load(Path(sys.argv[2])))\n"
        "heavy = {'paho', 'av', 'numpy', 'cv2'} & set(sys.modules)\n"
        "sys.exit(0 if report.ok and not heavy else 1)\n"
    )
    argv = [sys.executable, "-c", script, str(clip), str(tmp_path / "device.pub")]
    root = Path(__file__).parent.parent.parent
    assert subprocess.run(argv, cwd=root, check=False).returncode == 0
