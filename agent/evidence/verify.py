"""Checks a hand-over with public keys alone: no agent, no network, and the first thing wrong.

A hand-over is a folder with `manifest.json`, the files it names and, at the centre, a
`receipt-<name>.json` beside each. A custody log is a file of JSON lines, oldest first.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.core import wire
from agent.core.errors import ConfigError, HashMismatch, IntegrityError
from agent.evidence import custody, manifest
from agent.evidence.hashing import LEAF_BYTES, FileHash, hash_file
from agent.evidence.keys import PublicKey, open_envelope
from agent.evidence.receipt import check_file_receipt

RECEIPT_PREFIX = "receipt-"
MAX_TEXT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `wrong` is empty when it holds."""

    what: str
    wrong: str = ""


@dataclass(slots=True)
class Report:
    """All that was looked at, in order."""

    checks: list[Check] = field(default_factory=list)
    checked: int = 0  # hand-overs and custody logs

    @property
    def ok(self) -> bool:
        """Whether something was checked and nothing was wrong."""
        return self.checked > 0 and not self.first_wrong

    @property
    def first_wrong(self) -> str:
        """The first thing wrong, empty if there is none."""
        return next((f"{item.what}: {item.wrong}" for item in self.checks if item.wrong), "")

    def text(self) -> str:
        """Give a line for each check and the verdict."""
        lines = [
            f"{'WRONG' if item.wrong else 'ok   '}  {item.what}"
            + (f": {item.wrong}" if item.wrong else "")
            for item in self.checks
        ]
        if self.ok:
            return "\n".join([*lines, f"verified: {self.checked}, nothing wrong"])
        return "\n".join([*lines, f"NOT verified: {self.first_wrong or 'nothing to check'}"])

    def document(self) -> dict[str, Any]:
        """Give the report as JSON."""
        return {
            "ok": self.ok,
            "checked": self.checked,
            "first_wrong": self.first_wrong,
            "checks": [
                {"what": item.what, "ok": not item.wrong, "wrong": item.wrong}
                for item in self.checks
            ],
        }


def verify(path: Path, device_key: PublicKey, receiver_key: PublicKey | None = None) -> Report:
    """Check a hand-over's folder or manifest, a folder of such, or a custody log.

    Raises:
        ConfigError: there is no such path, or nothing in it that could be checked.
    """
    report = Report()
    if path.is_dir():
        folders = sorted({found.parent for found in path.rglob(manifest.FILE_NAME)})
        for folder in folders:
            report.checks += _hand_over(folder, device_key, receiver_key)
            report.checked += 1
    elif path.name == manifest.FILE_NAME:
        report.checks += _hand_over(path.parent, device_key, receiver_key)
        report.checked = 1
    elif path.is_file():
        report.checks += _custody(path, device_key)
        report.checked = 1
    else:
        raise ConfigError(f"verify: {path}: no such file or folder")
    if report.checked == 0:
        raise ConfigError(f"verify: {path}: holds no {manifest.FILE_NAME}")
    return report


def _hand_over(
    folder: Path, device_key: PublicKey, receiver_key: PublicKey | None
) -> Iterator[Check]:
    name = folder.name
    try:
        document = manifest.read(_envelope(folder / manifest.FILE_NAME), device_key)
    except (IntegrityError, OSError) as error:
        yield Check(f"{name}/{manifest.FILE_NAME}", str(error))
        return
    yield Check(f"{name}/{manifest.FILE_NAME}: signed by {device_key.keyid}")
    for entry in document["files"]:
        yield _file(folder, entry)
        yield from _receipt(folder, entry, document["device"], receiver_key)
    named = {entry["name"] for entry in document["files"]} | {manifest.FILE_NAME}
    for found in sorted(folder.iterdir()):
        if found.name not in named and not found.name.startswith(RECEIPT_PREFIX):
            yield Check(f"{name}/{found.name}", "does not stand in the manifest")


def _file(folder: Path, entry: wire.Json) -> Check:
    path = folder / entry["name"]
    what = f"{folder.name}/{entry['name']}"
    try:
        _compare(hash_file(path), entry)
    except OSError as error:
        return Check(what, error.strerror or "cannot be read")
    except HashMismatch as error:
        return Check(what, str(error))
    return Check(f"{what}: {entry['size_bytes']} bytes, sha256 {entry['sha256']}")


def _compare(found: FileHash, entry: wire.Json) -> None:
    if found.size_bytes != entry["size_bytes"]:
        raise HashMismatch(f"{found.size_bytes} bytes; manifest: {entry['size_bytes']}")
    if len(found.leaves) != len(entry["leaves"]):
        raise HashMismatch(f"{len(found.leaves)} leaves; manifest: {len(entry['leaves'])}")
    for number, (here, there) in enumerate(zip(found.leaves, entry["leaves"], strict=True)):
        if here != there:
            first = number * LEAF_BYTES
            last = min(first + LEAF_BYTES, found.size_bytes) - 1
            raise HashMismatch(f"leaf {number}, bytes {first} to {last}, was changed")
    for name, here in (("leaf_root", found.leaf_root), ("sha256", found.sha256)):
        if here != entry[name]:
            raise HashMismatch(f"{name} {here}; manifest: {entry[name]}")


def _receipt(
    folder: Path, entry: wire.Json, device: str, receiver_key: PublicKey | None
) -> Iterator[Check]:
    path = folder / f"{RECEIPT_PREFIX}{entry['name']}.json"
    if receiver_key is None or not path.exists():
        return
    what = f"{folder.name}/{path.name}"
    expected = {"device": device, "sha256": entry["sha256"], "size_bytes": entry["size_bytes"]}
    try:
        receipt = wire.decode("file_receipt", path.read_bytes())
        check_file_receipt(receipt, receiver_key, expected)
    except (IntegrityError, OSError) as error:
        yield Check(what, str(error))
        return
    yield Check(f"{what}: signed by {receiver_key.keyid}")


def _custody(path: Path, device_key: PublicKey) -> Iterator[Check]:
    what = path.name
    try:
        entries = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        head = next((item for item in entries if "payloadType" in item), None)
        last = custody.check_chain([item for item in entries if item is not head])
        yield Check(f"{what}: {last.seq} entries, unbroken")
        if head is not None:
            yield _signed_head(what, head, last, device_key)
    except (IntegrityError, OSError, ValueError, KeyError, TypeError) as error:
        yield Check(what, str(error) or type(error).__name__)


def _signed_head(what: str, head: wire.Json, last: custody.Head, key: PublicKey) -> Check:
    payload = open_envelope(head, custody.PAYLOAD_TYPE, key)
    document = wire.decode("custody", payload)
    if (document["seq"], document["hash"]) != (last.seq, last.hash):
        return Check(what, f"ends at entry {last.seq}; the signed head says {document['seq']}")
    return Check(f"{what}: head signed by {key.keyid}")


def _envelope(path: Path) -> wire.Json:
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise IntegrityError(f"{path.stat().st_size} bytes; allowed: {MAX_TEXT_BYTES}")
    try:
        document = json.loads(path.read_bytes())
        envelope = {
            "payloadType": str(document["payloadType"]),
            "payload": str(document["payload"]),
            "signatures": [
                {"keyid": str(item["keyid"]), "sig": str(item["sig"])}
                for item in document["signatures"]
            ],
        }
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"not an envelope: {error}") from error
    return envelope
