"""A recording that no player opens, made playable by a good one of the same camera model.

The broken file is read and never changed. The rescued one is a derivative: beside it stands a JSON
that says from what it was made, by what, and what is missing.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from agent import __version__
from agent.core.errors import ConfigError, StorageError, Unsupported
from agent.core.files import sync_directory, sync_file, write_atomic
from agent.docking.mp4 import boxes, guess, modelheader
from agent.docking.mp4.boxes import Layout
from agent.docking.mp4.modelheader import ModelHeader
from agent.docking.mp4.outcome import Outcome
from agent.docking.mp4.source import Source
from agent.docking.mp4.tool import REASON, TOOL
from agent.evidence.hashing import FileHash, hash_file

SCHEMA: Final = "outpost-rescue-1"
_PARTS: Final = (".index.part", ".search.part")


@dataclass(frozen=True, slots=True)
class Rescued:
    """A rescue that was done."""

    path: Path
    facts_path: Path
    header: ModelHeader
    outcome: Outcome
    seconds: float
    original_name: str
    original: FileHash
    lost_bytes: int  # of the original, that held something, but not in the rescued file
    lost_s: float  # estimated, of what is in the file; nobody knows what was never written
    zero_bytes: int  # the original ends in

    @property
    def has_sound(self) -> bool:
        """Whether sound was kept."""
        return self.outcome.sound_packets > 0


def facts_path(out: Path) -> Path:
    """Give where the facts of a rescued file stand."""
    return out.with_name(out.name + ".json")


def rescue(broken: Path, like: Path, out: Path, header_out: Path | None = None) -> Rescued:
    """Make a playable copy of a broken recording.

    Args:
        broken: an MP4 without its index, with a part of it, or cut.
        like: a good MP4 of the same camera model and mode, or a model header that was kept.
        out: the file to be made; the facts go beside it.
        header_out: where to keep the model header, so that it may stand for the good clip.

    Raises:
        ConfigError: a name that is taken.
        StorageError: something cannot be read or written, or is changed meanwhile.
        Unsupported: nothing can be rescued, or not with this good clip; or the file is whole.
    """
    facts = facts_path(out)
    for taken in (out, facts, *([header_out] if header_out else [])):
        if taken.exists():
            raise ConfigError(f"{taken}: is there already; allowed: a new name")
    with Source(broken) as source, Source(like):
        if source.size_bytes == 0:
            raise Unsupported(f"{broken}: is empty")
        try:
            original, reference = hash_file(broken), hash_file(like)
        except OSError as error:
            raise StorageError(f"{error.filename or broken}: {error.strerror}") from error
        header = modelheader.read(like, reference.sha256)
        attempt = _Attempt(source, like, header)
        try:
            part, outcome = attempt.run(out)
            source.check_unchanged()
            made = _told(source, out, header, outcome, original)
            _settle(part, made, like, reference.sha256)
        finally:
            for suffix in _PARTS:
                out.with_name(out.name + suffix).unlink(missing_ok=True)
    if header_out is not None:
        header.keep(header_out)
    return made


class _Attempt:
    """Tries the file's own index, then the search, and keeps what gives more."""

    def __init__(self, source: Source, like: Path, header: ModelHeader) -> None:
        self._source = source
        self._broken = source.path
        self._like = like
        self._header = header
        self._layout: Layout = boxes.layout(source)
        self._about = {"outpost_rescued": f"{TOOL} {__version__}"}

    def run(self, out: Path) -> tuple[Path, Outcome]:
        """Give the file that was made, not yet under its name, and what came of it."""
        by_index, by_search = (out.with_name(out.name + suffix) for suffix in _PARTS)
        first = self._with_index(by_index)
        if first is not None and first.is_whole and self._layout.is_whole:
            raise Unsupported(
                f"{self._broken}: plays as it is, {first.pictures} pictures; nothing to rescue"
            )
        second = self._with_search(by_search) if first is None or not first.is_whole else None
        if first is not None and (second is None or second.pictures <= first.pictures):
            return by_index, first
        if second is None or second.pictures == 0:
            raise Unsupported(self._why_nothing(second))
        return by_search, second

    def _with_index(self, part: Path) -> Outcome | None:
        from agent.docking.mp4 import byindex, trial  # noqa: PLC0415 - heavy

        if not self._layout.has_index:
            return None
        try:
            found = modelheader.index_of(self._broken)
            codec = None if found is None else modelheader.reader_of(found[0])
        except Unsupported as error:
            raise Unsupported(f"{self._broken}: {error}; {self._like}: {self._header}") from error
        if codec is None:
            return None
        told = f"{codec.name} {codec.size_px[0]}x{codec.size_px[1]}"
        if (codec.name, codec.size_px) != (self._header.codec, self._size_px):
            raise Unsupported(f"{self._broken}: {told}; {self._like}: {self._header}")
        outcome = self._tried(
            lambda: byindex.write(self._broken, self._source.size_bytes, codec, part, self._about)
        )
        is_good = outcome is not None and outcome.pictures > 0 and trial.decodes(part, codec)
        return outcome if is_good else None

    def _with_search(self, part: Path) -> Outcome | None:
        from agent.docking.mp4 import bysearch, trial  # noqa: PLC0415 - heavy

        outcome = bysearch.write(self._source, self._layout.media, self._header, part, self._about)
        size = outcome.told_size_px
        if size is not None and size != self._size_px:
            raise Unsupported(
                f"{self._broken}: {self._header.codec} {size[0]}x{size[1]};"
                f" {self._like}: {self._header}"
            )
        if outcome.pictures and not trial.decodes(part, self._header.reader()):
            raise Unsupported(
                f"{self._broken}: {self._header.codec} of another size or mode, as no key frame"
                f" decodes with the parameter sets of {self._like}: {self._header}"
            )
        return outcome

    @property
    def _size_px(self) -> tuple[int, int]:
        return self._header.width_px, self._header.height_px

    @staticmethod
    def _tried(write: Callable[[], Outcome]) -> Outcome | None:
        try:
            return write()
        except StorageError:  # an index that lies: there is the search
            return None

    def _why_nothing(self, outcome: Outcome | None) -> str:
        if outcome is not None and outcome.left_out:
            return f"{self._broken}: {outcome.left_out} pictures, but no key frame before them"
        seen = guess.codec_of(self._source, self._layout.media)
        if seen:
            other = " of another size or mode" if seen == self._header.codec else ""
            return f"{self._broken}: looks like {seen}{other}; {self._like}: {self._header}"
        what = "" if self._layout.has_type else "does not begin as an MP4 does, and "
        return f"{self._broken}: {what}no picture like those of {self._like} ({self._header})"


def _told(
    source: Source, out: Path, header: ModelHeader, outcome: Outcome, original: FileHash
) -> Rescued:
    zero_bytes = source.zeros_at_end()
    lost_bytes = max(0, outcome.lost_bytes - zero_bytes)
    if outcome.told_pictures:
        lost_pictures: float = max(0, outcome.told_pictures - outcome.pictures)
    else:
        lost_pictures = max(outcome.left_out, lost_bytes / max(1, header.picture_bytes))
    return Rescued(
        path=out,
        facts_path=facts_path(out),
        header=header,
        outcome=outcome,
        seconds=outcome.pictures / header.fps,
        original_name=source.path.name,
        original=original,
        lost_bytes=lost_bytes,
        lost_s=round(lost_pictures / header.fps, 2),
        zero_bytes=zero_bytes,
    )


def _settle(part: Path, made: Rescued, like: Path, reference_sha256: str) -> None:
    """Write the facts, then let the file appear: it is never there without them."""
    try:
        sync_file(part)
        facts = _facts(made, hash_file(part), like, reference_sha256)
        write_atomic(made.facts_path, json.dumps(facts, indent=2).encode() + b"\n")
        part.replace(made.path)
        sync_directory(made.path.parent)
    except OSError as error:
        raise StorageError(f"{made.path}: {error.strerror}") from error


def _facts(made: Rescued, hashed: FileHash, like: Path, reference_sha256: str) -> dict[str, Any]:
    header, outcome = made.header, made.outcome
    return {
        "schema": SCHEMA,
        "file": {
            "name": made.path.name,
            "size_bytes": hashed.size_bytes,
            "sha256": hashed.sha256,
        },
        "derived_from": {
            "files": [
                {
                    "name": made.path.name,
                    "parent_name": made.original_name,
                    "parent_sha256": made.original.sha256,
                }
            ],
            "tool": TOOL,
            "version": __version__,
            "reason": REASON,
            "parameters": {
                "way": outcome.way,
                "reference_name": like.name,
                "reference_sha256": header.reference_sha256,
                "reference_file_sha256": reference_sha256,
                "codec": header.codec,
                "width_px": header.width_px,
                "height_px": header.height_px,
                "pictures_per_s": round(header.fps, 6),
            },
        },
        "found": {
            key: value
            for key, value in asdict(outcome).items()
            if key not in ("told_size_px", "lost_bytes")
        }
        | {"seconds": round(made.seconds, 3)},
        "loss": {
            "original_bytes": made.original.size_bytes,
            "lost_bytes": made.lost_bytes,
            "zero_bytes_at_end": made.zero_bytes,
            "estimated_lost_s": made.lost_s,
            "sound": "kept" if made.has_sound else "left out",
            "times": "as recorded"
            if outcome.way == "index"
            else "counted at the good clip's rate; gaps estimated",
        },
    }
