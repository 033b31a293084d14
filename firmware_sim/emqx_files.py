"""EMQX's end of its file transfer, as far as a device sees it: commands in, reason codes out.

Written from docs.emqx.com, "File Transfer Clients Development": segments count by client and file
id, a `fin` puts the file together and is answered when that is done; every failure is one code.
"""

import hashlib
import json
from dataclasses import dataclass, field

SUCCESS, NOT_HEARD, FAILED = 0x00, 0x10, 0x80
PREFIX = "$file/"
MOST_NAME_BYTES = 240


@dataclass(slots=True)
class Incoming:
    """A transfer that is under way."""

    about: dict[str, object]
    segments: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was put together."""

    about: dict[str, object]
    content: bytes


class FileTransfer:
    """The broker's file transfer for one client; switched off it hears nothing, as others do."""

    def __init__(self) -> None:
        self.is_enabled = True
        self.has_room = True
        self.incoming: dict[str, Incoming] = {}
        self.exported: dict[str, Exported] = {}
        self.commands: list[tuple[str, str]] = []  # file id, command or offset

    def publish(self, topic: str, payload: bytes) -> int:
        """Take a publish; gives the reason code of its PUBACK."""
        if not self.is_enabled or not topic.startswith(PREFIX):
            return NOT_HEARD
        fid, command, *rest = topic.removeprefix(PREFIX).split("/")
        self.commands.append((fid, command))
        if command == "init":
            return self._init(fid, payload)
        if command == "fin":
            return self._fin(fid, rest)
        return self._segment(fid, command, rest, payload)

    def forget(self) -> None:
        """Drop what is under way: a day has passed, or another node has it."""
        self.incoming.clear()

    def _init(self, fid: str, payload: bytes) -> int:
        about = json.loads(payload)
        is_good = isinstance(about.get("name"), str) and isinstance(about.get("size"), int)
        if not is_good or len(about["name"].encode()) > MOST_NAME_BYTES:
            return FAILED
        self.incoming.setdefault(fid, Incoming(about)).about = about
        return SUCCESS

    def _segment(self, fid: str, offset: str, rest: list[str], payload: bytes) -> int:
        is_good = offset.isdigit() and (not rest or rest == [hashlib.sha256(payload).hexdigest()])
        if not is_good or not self.has_room or fid not in self.incoming:
            return FAILED
        self.incoming[fid].segments[int(offset)] = payload
        return SUCCESS

    def _fin(self, fid: str, rest: list[str]) -> int:
        """Put the file together; what is missing is not said."""
        known = self.incoming.get(fid)
        if known is None or not rest or not rest[0].isdigit():
            return FAILED
        content = bytearray()
        for offset, piece in sorted(known.segments.items()):
            if offset > len(content):
                return FAILED
            content[offset : offset + len(piece)] = piece
        digest = hashlib.sha256(content).hexdigest()
        checksums = {*rest[1:], str(known.about.get("checksum", digest))}
        if len(content) != int(rest[0]) or checksums != {digest}:
            return FAILED
        del self.incoming[fid]
        self.exported[fid] = Exported(known.about, bytes(content))
        return SUCCESS
