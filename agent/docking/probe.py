"""What a file from a camera is, and a playable copy of one that is broken, without parsing it here.

Everything that reads media runs in a child (`agent/docking/confined.py`). Whatever becomes of it
comes back as words in `why`: a camera's file never raises an error here.
"""

import os
import re
import shutil
import stat
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from agent.docking import confined
from agent.docking.confined import Limits, Tick, idle

_PROBING: Final = Limits()
_LEARNING: Final = Limits(cpu_s=300, file_bytes=1 << 20)
_RESCUE_CPU_S: Final = 300  # and more by the file's size
_RESCUE_BYTES_PER_S: Final = 1 << 20  # the slowest box searches more
_RESCUE_MORE_BYTES: Final = 256 << 20  # of the copy: an index, and what a muxer rounds
_WAYS: Final = 2  # of rescuing; the better one is kept
_PARTS: Final = ("", ".json", ".json.tmp", ".index.part", ".search.part")
_MOST_TEXT: Final = 400
_MOST_NUMBER: Final = (1 << 53) - 1


@dataclass(frozen=True, slots=True)
class Probe:
    """What a file is, as far as it could be told."""

    size_bytes: int = 0
    container: str = ""  # mp4, mov, avi, mpegts, …; empty: none that is known
    codec: str = ""  # of the picture
    width_px: int = 0
    height_px: int = 0
    duration_ms: int | None = None  # as the container tells
    is_playable: bool = False  # its index is there, its first picture is shown, its last reached
    has_sound: bool = False
    created: str = ""  # when it was made, as the container tells
    zero_tail_bytes: int = 0  # that the file ends in
    why: str = ""  # not playable


@dataclass(frozen=True, slots=True)
class RescueFacts:
    """What a rescue has made."""

    way: str = ""  # index: by the file's own; search: by the header
    pictures: int = 0
    left_out: int = 0  # pictures found, but not whole or not to be decoded
    lost_bytes: int = 0  # of the original, that held something
    lost_ms: int = 0  # estimated, of what is in the file
    zero_bytes: int = 0  # the original ends in
    duration_ms: int = 0
    sound_packets: int = 0
    codec: str = ""
    width_px: int = 0
    height_px: int = 0
    reference_sha256: str = ""  # of the good clip
    original_sha256: str = ""
    why: str = ""  # nothing was made
    may_pass: bool = False  # for a reason that goes away by itself


def probe(file: Path | int, tick: Tick = idle) -> Probe:
    """Tell what a file is.

    Args:
        file: a path, which is not followed if it is a link, or a descriptor; only read.
        tick: called about twice a second meanwhile; what it raises comes out, here and below.

    Returns:
        With `why` if it does not play: "unreadable: …" if nothing could be learnt.
    """
    if isinstance(file, int):
        return _probed(file, tick)
    try:
        descriptor = os.open(
            file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        )
    except (OSError, ValueError) as error:
        return Probe(why=f"unreadable: {getattr(error, 'strerror', None) or error}")
    try:
        return _probed(descriptor, tick)
    finally:
        os.close(descriptor)


def keep_header(path: Path, header_path: Path, sha256: str = "", tick: Tick = idle) -> str:
    """Keep what a good clip tells of its camera's recordings; gives why not, empty if it is kept.

    Args:
        path: the clip.
        header_path: where; what stands there is replaced.
        sha256: of the clip, to name it by; empty: it is hashed first.
        tick: see `probe`.
    """
    header_path.parent.mkdir(parents=True, exist_ok=True)
    told = confined.told("header", [str(path), str(header_path), sha256], _LEARNING, tick)
    return _clean(told["why"]) if "why" in told else ""


def rescue_in_child(
    broken: Path, header_path: Path, target: Path, tick: Tick = idle
) -> RescueFacts:
    """Make a playable copy of a broken recording.

    Args:
        broken: it is only read.
        header_path: a kept header, or a good clip, of the same camera model and mode.
        target: the copy; there is none if the facts say `why`. It may not be there yet.
        tick: see `probe`.
    """
    size_bytes = broken.stat().st_size if broken.is_file() else 0
    limits = Limits(
        cpu_s=_RESCUE_CPU_S + size_bytes // _RESCUE_BYTES_PER_S,
        file_bytes=size_bytes + _RESCUE_MORE_BYTES,
    )
    if target.exists():
        return RescueFacts(why=f"{target}: is there already")
    if why := _lacks_room(size_bytes, target):
        return RescueFacts(why=why, may_pass=True)
    facts = RescueFacts(why="was ended")
    try:
        words = [str(broken), str(header_path), str(target)]
        told = confined.told("rescue", words, limits, tick)
        facts = _record(RescueFacts, told) or RescueFacts(why="its reader told nonsense")
        if not facts.why and not target.is_file():
            facts = RescueFacts(why="its reader made nothing")
    finally:
        for suffix in _PARTS if facts.why else _PARTS[1:]:
            target.with_name(target.name + suffix).unlink(missing_ok=True)
    return facts


def _lacks_room(size_bytes: int, target: Path) -> str:
    """Tell if the disk does not hold what two ways of rescuing write."""
    wanted = _WAYS * size_bytes + _RESCUE_MORE_BYTES
    try:
        free = shutil.disk_usage(target.parent).free
    except OSError as error:
        return f"{target.parent}: {error.strerror}"
    return "" if free >= wanted else f"needs {wanted} bytes of disk for a while; free: {free}"


def _probed(descriptor: int, tick: Tick) -> Probe:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        return Probe(why="unreadable: no plain file")
    told = confined.told("probe", [f"/proc/self/fd/{descriptor}"], _PROBING, tick, descriptor)
    made = _record(Probe, told | {"size_bytes": found.st_size})
    if made is None:
        return Probe(size_bytes=found.st_size, why="unreadable: its reader told nonsense")
    if made.container:
        return made
    return replace(made, is_playable=False, why=f"unreadable: {made.why or 'no known container'}")


T = TypeVar("T", Probe, RescueFacts)


def _record(kind: type[T], told: dict[str, Any]) -> T | None:
    """Give what a child told as a record, None if it is none: the child is not believed blindly."""
    allowed: dict[Any, type] = {str: str, int: int, bool: bool, int | None: int}
    values: dict[str, Any] = {}
    for field in fields(kind):
        value = told.get(field.name, field.default)
        if value is None and field.default is None:
            continue
        if type(value) is not allowed[field.type]:
            return None
        if isinstance(value, int) and not 0 <= value <= _MOST_NUMBER:
            return None
        values[field.name] = _clean(value) if isinstance(value, str) else value
    return kind(**values)


def _clean(text: Any) -> str:
    """Give a text as it may stand in a log or on a page."""
    return re.sub(r"[^ -~]", "?", str(text))[:_MOST_TEXT]
