"""What one good clip tells of all clips of a camera model in one mode; holds no picture of it."""

import base64
import binascii
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agent.core.errors import StorageError, Unsupported
from agent.core.files import write_atomic
from agent.docking.mp4 import boxes, nals, playorder, template
from agent.docking.mp4.bits import Implausible
from agent.docking.mp4.coded import Codec, names_of
from agent.docking.mp4.h264 import H264
from agent.docking.mp4.hevc import Hevc
from agent.docking.mp4.source import Source

if TYPE_CHECKING:
    from agent.docking.mp4.media import Clip, Sample

SCHEMA: Final = "outpost-model-header-1"
LEARNT = 3000  # pictures: minutes of a scene
_LEAST_UNDERSTOOD = 0.9
_MOST_INDEX_BYTES = 256 << 20
_MOST_HEADER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelHeader:
    """A camera model's mode."""

    codec: str
    width_px: int
    height_px: int
    sample_entry: bytes  # as the good clip's index has it, with the parameter sets
    matrix: bytes  # how the picture is turned
    timescale: int  # ticks a second
    picture_ticks: int
    poc_step: int  # between the places of pictures shown one after the other
    reorder: int  # pictures decoded before one that is shown earlier
    largest_bytes: Mapping[str, int]  # of NAL units, by their header in hex
    starters: tuple[str, ...]  # headers a picture begins with
    least_slices: int  # of a picture
    largest_gap_bytes: int  # between two pictures: sound, mostly
    picture_bytes: int  # mean
    gap_bytes: int  # mean between two pictures
    is_clean: bool  # no NAL unit holds what none may
    sound: str  # what the good clip has
    reference_sha256: str

    def reader(self) -> Codec:
        """Give a reader of its NAL units.

        Raises:
            Unsupported: the parameter sets are none.
        """
        return reader_of(self.sample_entry)

    @property
    def fps(self) -> float:
        """Pictures a second."""
        return self.timescale / self.picture_ticks

    def __str__(self) -> str:
        return f"{self.codec} {self.width_px}x{self.height_px} at {self.fps:g}/s"

    def keep(self, path: Path) -> None:
        """Write it as JSON, so that it stands for the good clip."""
        told = asdict(self) | {"schema": SCHEMA}
        told["sample_entry"] = base64.b64encode(self.sample_entry).decode()
        told["matrix"] = base64.b64encode(self.matrix).decode()
        write_atomic(path, json.dumps(told, indent=2, sort_keys=True).encode() + b"\n")


def reader_of(sample_entry: bytes) -> Codec:
    """Give a reader of the NAL units a sample entry speaks of.

    Raises:
        Unsupported: it is of another codec, or has no parameter sets.
    """
    try:
        name = names_of(sample_entry)
        config = template.configuration(sample_entry)
        sets = template.parameter_sets(name, config)
        if template.length_bytes(name, config) != nals.LENGTH_BYTES:
            sets = []
        return H264(sets) if name == "h264" else Hevc(sets)
    except (Implausible, IndexError) as error:
        raise Unsupported(str(error)) from error


def read(path: Path, sha256: str) -> ModelHeader:
    """Read what `--like` names: a header that was kept, or a good clip.

    Args:
        path: the file.
        sha256: of it, to name the clip by.

    Raises:
        StorageError: it cannot be read.
        Unsupported: it tells no codec that can be rescued, or not enough.
    """
    with Source(path) as source:
        is_text = source.read(0, 1) == b"{"
        if is_text:
            content = source.read(0, _MOST_HEADER_BYTES + 1)
            return _parsed(path, content)
    return learn(path, sha256)


def index_of(path: Path) -> tuple[bytes, bytes] | None:
    """Give sample entry and matrix of a file's video track; None without a whole index."""
    with Source(path) as source:
        place = 0
        for _ in range(boxes.MOST_BOXES):
            box = boxes.read_box(source, place, source.size_bytes)
            if box is None or box.end <= place:
                return None
            is_whole = box.end <= source.size_bytes and box.end - box.body <= _MOST_INDEX_BYTES
            if box.letters == b"moov":
                if not is_whole:
                    return None
                return template.video_track(source.read(box.body, box.end - box.body))
            place = box.end
    return None


def learn(path: Path, sha256: str) -> ModelHeader:
    """Learn from a good clip.

    Raises:
        StorageError: it cannot be read.
        Unsupported: it is not whole, or of a codec that cannot be rescued.
    """
    from agent.docking.mp4 import media  # noqa: PLC0415 - heavy; a kept header needs it later

    found = index_of(path)
    if found is None:
        raise Unsupported(f"{path}: no good clip: no whole MP4 index with a video track")
    entry, matrix = found
    try:
        codec = reader_of(entry)
    except Unsupported as error:
        raise Unsupported(f"{path}: {error}") from error
    study = _Study(codec)
    with media.Clip(path) as clip:
        study.take(clip)
        sound = clip.sound()
        timescale = clip.time_base.denominator
        ticks = study.picture_ticks() * clip.time_base.numerator
    if not study.is_understood or ticks <= 0:
        raise Unsupported(
            f"{path}: no good clip: {len(study.turns)} of {study.pictures} pictures could be told"
            f" to follow from those before; allowed: from {_LEAST_UNDERSTOOD:.0%}"
        )
    step = study.poc_step()
    return ModelHeader(
        codec=codec.name,
        width_px=codec.size_px[0],
        height_px=codec.size_px[1],
        sample_entry=entry,
        matrix=matrix,
        timescale=timescale,
        picture_ticks=ticks,
        poc_step=step,
        reorder=playorder.reorder_of(study.turns, step),
        largest_bytes=dict(study.largest),
        starters=tuple(sorted(study.starters)),
        least_slices=study.least_slices,
        largest_gap_bytes=max(study.gaps, default=0),
        picture_bytes=study.bytes // study.pictures,
        gap_bytes=sum(study.gaps) // study.pictures,
        is_clean=study.is_clean,
        sound=f"{sound.codec} {sound.rate_hz} Hz, {sound.channels}" if sound else "",
        reference_sha256=sha256,
    )


class _Study:
    """Counts what pictures of a good clip have in common."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._chain = playorder.Chain(codec)
        self._places: list[tuple[int, int]] = []
        self._steps: Counter[int] = Counter()
        self._last_dts: int | None = None
        self.largest: dict[str, int] = {}
        self.starters: set[str] = set()
        self.turns: list[playorder.Turn] = []
        self.gaps: list[int] = []
        self.least_slices = 0
        self.pictures = self.bytes = 0
        self.is_clean = True

    def take(self, clip: "Clip") -> None:
        """Read pictures."""
        for sample in clip.samples():
            try:
                self._sample(sample)
            except ValueError:
                continue
            if self.pictures == LEARNT:
                break
        self._places.sort()
        for (_, end), (start, _) in zip(self._places, self._places[1:], strict=False):
            self.gaps.append(max(0, start - end))

    @property
    def is_understood(self) -> bool:
        """Whether it is known which picture needs which."""
        return 0 < self.pictures * _LEAST_UNDERSTOOD <= len(self.turns)

    def picture_ticks(self) -> int:
        """Give the usual step from picture to picture."""
        return self._steps.most_common(1)[0][0] if self._steps else 0

    def poc_step(self) -> int:
        """Give what all differences of place are multiples of."""
        return math.gcd(*(turn.poc or 0 for turn in self.turns)) or 1

    def _sample(self, sample: "Sample") -> None:
        head, slices = None, 0
        for number, nal in enumerate(nals.units(sample.payload)):
            name = nal[: self._codec.header_bytes].hex()
            if number == 0:
                self.starters.add(name)
            self.largest[name] = max(len(nal), self.largest.get(name, 0))
            self.is_clean = self.is_clean and nals.is_clean(nal)
            if self._codec.is_slice(self._codec.kind(nal)):
                found = self._codec.read(nal)
                slices += 1
                head = head or found
        if head is None:
            return
        self.pictures += 1
        self.bytes += len(sample.payload)
        self.least_slices = min(self.least_slices or slices, slices)
        self._places.append((sample.place, sample.place + len(sample.payload)))
        if self._last_dts is not None:
            self._steps[sample.dts - self._last_dts] += 1
        self._last_dts = sample.dts
        if turn := self._chain.admit(head):
            self.turns.append(turn)


def _parsed(path: Path, content: bytes) -> ModelHeader:
    try:
        told = json.loads(content)
        _check_keys(told)
        for key in ("sample_entry", "matrix"):
            told[key] = base64.b64decode(told[key], validate=True)
        told["starters"] = tuple(told["starters"])
        _check(told)
        header = ModelHeader(**told)
        codec = header.reader()
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error) as error:
        raise StorageError(f"{path}: no model header: {error}") from error
    if (header.codec, header.width_px, header.height_px) != (codec.name, *codec.size_px):
        raise StorageError(f"{path}: says {header}; its parameter sets: {codec.name}")
    return header


def _check_keys(told: Any) -> None:
    if not isinstance(told, dict) or told.pop("schema", None) != SCHEMA:
        raise ValueError(f"no {SCHEMA}")
    if wrong := set(told) ^ {field.name for field in fields(ModelHeader)}:
        raise ValueError(f"keys {sorted(wrong)}")


def _check(told: dict[str, Any]) -> None:
    kinds = {field.name: field.type for field in fields(ModelHeader)}
    for name, kind in kinds.items():
        value = told[name]
        if isinstance(kind, type) and type(value) is not kind:
            raise ValueError(f"{name} = {value!r}")
        if kind is int and not 0 <= value < 1 << 32:
            raise ValueError(f"{name} = {value}; allowed: 0 to {(1 << 32) - 1}")
    sizes = told["largest_bytes"]
    if not isinstance(sizes, dict) or not all(type(size) is int for size in sizes.values()):
        raise ValueError("largest_bytes: no table of sizes")
    for name in (*sizes, *told["starters"]):
        bytes.fromhex(name)
    if not (sizes and told["timescale"] and told["picture_ticks"] and len(told["matrix"]) == 36):  # noqa: PLR2004
        raise ValueError("nothing to go by")
