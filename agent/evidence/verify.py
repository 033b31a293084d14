"""Checks a hand-over with public keys alone: no agent, no network, and the first thing wrong.

A hand-over is a folder with `manifest.json`, the files it names and, at the centre, a
`receipt-<name>.json` beside each. A custody log is a file of JSON lines, oldest first.
"""

import json
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from agent.core import wire
from agent.core.errors import ChainBroken, ConfigError, HashMismatch, IntegrityError
from agent.evidence import custody, docklist, manifest, receipt
from agent.evidence.hashing import hash_file
from agent.evidence.keys import PublicKey

MAX_TEXT_BYTES = 64 << 20
MAX_LINE_BYTES = 1 << 20
MS_PER_S = 1000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `wrong` is empty when it holds."""

    what: str
    wrong: str = ""

    @property
    def text(self) -> str:
        """One line; names that are not UTF-8 are shown with escapes."""
        line = f"{self.what}: {self.wrong}" if self.wrong else self.what
        return line.encode("utf-8", "backslashreplace").decode()


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
        return next((item.text for item in self.checks if item.wrong), "")

    def text(self) -> str:
        """Give a line for each check and the verdict."""
        lines = [f"{'WRONG' if item.wrong else 'ok   '}  {item.text}" for item in self.checks]
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


def verify(path: Path, device_key: PublicKey, *receiver_keys: PublicKey) -> Report:
    """Check a hand-over's folder or manifest, a folder of such, or a custody log.

    Args:
        path: what is to be checked; a custody log may hold signed heads on lines of their own.
        device_key: the public key of the device that made it.
        receiver_keys: the centre's, old and new; when given, every file needs its receipt by one.

    Raises:
        ConfigError: there is no such path, or nothing in it that could be checked.
    """
    report = Report()
    if path.is_dir():
        for folder in sorted({found.parent for found in path.rglob(manifest.FILE_NAME)}):
            report.checks += _hand_over(folder, device_key, receiver_keys)
            report.checked += 1
        report.checks += _without_manifest(path)
    elif path.name == manifest.FILE_NAME:
        report.checks += _hand_over(path.parent, device_key, receiver_keys)
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
    folder: Path, device_key: PublicKey, receiver_keys: Sequence[PublicKey]
) -> Iterator[Check]:
    name = folder.name
    try:
        document = manifest.read(_envelope(folder / manifest.FILE_NAME), device_key)
    except (IntegrityError, OSError) as error:
        yield Check(f"{name}/{manifest.FILE_NAME}", str(error))
        return
    yield Check(f"{name}/{manifest.FILE_NAME}: signed by {device_key.keyid}")
    if "derived_from" in document:
        yield Check(f"{name}: {_origin(document['derived_from'])}")
    named = {manifest.FILE_NAME}
    for entry in document["files"]:
        yield _file(folder, entry)
        if receiver_keys:
            yield _receipt(folder, entry, document["device"], receiver_keys)
        if entry["role"] == "session":
            yield from _list(folder, device_key)
        named |= {entry["name"], receipt.file_name(entry["name"])}
    for found in sorted(folder.iterdir()):
        if found.name not in named:
            yield Check(f"{name}/{found.name}", "does not stand in the manifest")


def _list(folder: Path, device_key: PublicKey) -> Iterator[Check]:
    try:
        signed = _envelope(folder / docklist.FILE_NAME)
    except (IntegrityError, OSError) as error:
        yield Check(f"{folder.name}/{docklist.FILE_NAME}", str(error))
        return
    for what, wrong in docklist.findings(folder, signed, device_key):
        yield Check(what, wrong)


def _origin(derived: wire.Json) -> str:
    return (
        f"a copy of clip {derived['clip_id']} (manifest {derived['manifest_sha256']})"
        f" {_done(derived)} by {derived['tool']} {derived['version']}: {derived['reason']}"
    )


def _done(derived: wire.Json) -> str:
    """Tell what was done to a copy."""
    if "masks" in derived:
        masks = ", ".join(mask["name"] for mask in derived["masks"])
        return f"with {masks} blacked out"
    rescue = derived["rescue"]
    sound = "with" if rescue["has_sound"] else "without"
    return (
        f"made playable ({rescue['pictures']} pictures, {sound} sound, about"
        f" {rescue['lost_ms'] / MS_PER_S:.1f} s missing)"
    )


def _without_manifest(path: Path) -> Iterator[Check]:
    """Name folders beside the hand-overs whose manifest is gone."""
    found = {manifest_path.parent for manifest_path in path.rglob(manifest.FILE_NAME)}
    for parent in sorted({folder.parent for folder in found if folder != path}):
        for folder in sorted(parent.iterdir()):
            if folder.is_dir() and folder not in found and any(map(Path.is_file, folder.iterdir())):
                yield Check(folder.name, f"holds no {manifest.FILE_NAME}")


def _file(folder: Path, entry: wire.Json) -> Check:
    path = folder / entry["name"]
    what = f"{folder.name}/{entry['name']}"
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return Check(what, "no plain file")
        manifest.check_file(hash_file(path), entry)
    except OSError as error:
        return Check(what, error.strerror or "cannot be read")
    except HashMismatch as error:
        return Check(what, str(error))
    return Check(f"{what}: {entry['size_bytes']} bytes, sha256 {entry['sha256']}")


def _receipt(folder: Path, entry: wire.Json, device: str, keys: Sequence[PublicKey]) -> Check:
    path = folder / receipt.file_name(entry["name"])
    what = f"{folder.name}/{path.name}"
    expected = {"device": device, "sha256": entry["sha256"], "size_bytes": entry["size_bytes"]}
    try:
        document = wire.decode("file_receipt", _text(path))
        named = [key for key in keys if key.keyid == document["keyid"]]
        key = named[0] if named else keys[0]
        receipt.check_file_receipt(document, key, expected)
    except OSError as error:
        return Check(what, error.strerror or "cannot be read")
    except IntegrityError as error:
        return Check(what, str(error))
    return Check(f"{what}: signed by {key.keyid}")


def _custody(path: Path, device_key: PublicKey) -> Iterator[Check]:
    hashes: dict[int, str] = {}
    heads: list[wire.Json] = []
    try:
        with path.open("rb") as stream:
            last = custody.check_chain(_entries(stream, heads), hashes)
        yield Check(f"{path.name}: {last.seq} entries, unbroken", "" if hashes else "empty")
        for head in heads:
            said = custody.check_head(_envelope_of(head), device_key, hashes)
            yield Check(f"{path.name}: head of entry {said.seq} signed by {device_key.keyid}")
    except OSError as error:
        yield Check(path.name, error.strerror or "cannot be read")
        return
    except IntegrityError as error:
        yield Check(path.name, str(error))
        return
    if not heads:
        yield Check(f"{path.name}: no signed head, so a cut end would not be seen")


def _entries(stream: BinaryIO, heads: list[wire.Json]) -> Iterator[wire.Json]:
    """Give the entries of an export; signed heads among them are put into `heads`."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES):
        number += 1
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ChainBroken(f"custody: line {number} is not JSON: {str(error)[:80]}") from error
        if not isinstance(document, dict):
            raise ChainBroken(f"custody: line {number} is no entry of a log")
        if "payloadType" in document:
            heads.append(document)
        else:
            yield document


def envelope_of(folder: Path) -> wire.Json:
    """Read the signed manifest of a hand-over, unchecked.

    Raises:
        IntegrityError: it is no envelope.
        OSError: it cannot be read.
    """
    return _envelope(folder / manifest.FILE_NAME)


def _envelope(path: Path) -> wire.Json:
    try:
        document = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"not an envelope: {str(error)[:80]}") from error
    return _envelope_of(document)


def _envelope_of(document: Any) -> wire.Json:
    try:
        return {
            "payloadType": str(document["payloadType"]),
            "payload": str(document["payload"]),
            "signatures": [
                {"keyid": str(item["keyid"]), "sig": str(item["sig"])}
                for item in document["signatures"]
            ],
        }
    except (KeyError, TypeError) as error:
        raise IntegrityError(f"not an envelope: {str(error)[:80]}") from error


def _text(path: Path) -> bytes:
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise IntegrityError("no plain file")
    if found.st_size > MAX_TEXT_BYTES:
        raise IntegrityError(f"{found.st_size} bytes; allowed: {MAX_TEXT_BYTES}")
    return path.read_bytes()
