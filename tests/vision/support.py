"""Real files as sources, and the score of detections against true boxes."""

import csv
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import av

from agent.core.model import Box, Packet, StreamInfo

ROOT = Path(__file__).parents[2]
PLAZA = ROOT / "firmware_sim" / "media" / "plaza.mp4"
BIKES = ROOT / "firmware_sim" / "media" / "bikes.mp4"
SHARED = ROOT.parent / "shared"


class FileSource:
    """A video file through PyAV alone, as fast as it is read."""

    def __init__(self, path: Path, run: str = "r1") -> None:
        self.path = path
        self.run = run
        self.container = None
        self.is_closed = False

    def open(self) -> StreamInfo:
        self.container = av.open(str(self.path))
        stream = self.container.streams.video[0]
        return StreamInfo(
            stream.codec_context.name,
            stream.width,
            stream.height,
            stream.time_base,
            bytes(stream.codec_context.extradata or b""),
        )

    def packets(self) -> Iterator[Packet]:
        try:
            for packet in self.container.demux(video=0):
                if self.is_closed or packet.dts is None:
                    return
                yield Packet(
                    self.run,
                    packet.pts,
                    packet.dts,
                    packet.time_base,
                    packet.is_keyframe,
                    False,
                    time.monotonic_ns(),
                    1_700_000_000_000_000_000 + int(packet.pts * packet.time_base * 10**9),
                    None,
                    bytes(packet),
                )
        finally:
            self.container.close()

    def close(self) -> None:
        self.is_closed = True


def frames(path: Path, **options) -> Iterator:
    """Every decoded frame of a file."""
    from agent.vision.decode import Decoder

    source = FileSource(path)
    decoder = Decoder(source.open(), **options)
    for packet in source.packets():
        yield from decoder.decode(packet)
    yield from decoder.flush()


def true_people(path: Path, width_px: int, height_px: int) -> dict[int, dict[int, Box]]:
    """Annotated persons by frame (from 1) and identity, boxes in fractions."""
    found: dict[int, dict[int, Box]] = {}
    with path.open() as stream:
        for row in csv.reader(stream):
            if not row[0].isdigit():
                continue
            frame, who, *box = int(row[0]), int(row[1]), *(float(value) for value in row[2:6])
            x, y, w, h = box
            found.setdefault(frame, {})[who] = Box(
                x / width_px, y / height_px, w / width_px, h / height_px
            )
    return found


def overlap(a: Box, b: Box) -> float:
    """Intersection over union, by hand."""
    w = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    h = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / (a.w * a.h + b.w * b.h - w * h)


def average_precision(
    found: dict[int, Sequence[tuple[float, Box]]], truth: dict[int, Sequence[Box]], iou: float
) -> float:
    """Area under the interpolated precision-recall curve, all points (as VOC 2010 on)."""
    hits = ranked_hits(found, truth, iou)
    total = sum(len(boxes) for boxes in truth.values())
    precisions, recalls, right = [], [], 0
    for count, is_hit in enumerate(hits, 1):
        right += is_hit
        precisions.append(right / count)
        recalls.append(right / total)
    area, reached = 0.0, 0.0
    for index, recall in enumerate(recalls):
        area += (recall - reached) * max(precisions[index:])
        reached = recall
    return area


def ranked_hits(found, truth, iou) -> list[bool]:
    """Whether each detection, best score first, is the first to meet a true box."""
    ranked = sorted(
        ((score, frame, box) for frame, items in found.items() for score, box in items),
        key=lambda item: -item[0],
    )
    taken: dict[int, set[int]] = {}
    hits = []
    for _, frame, box in ranked:
        used = taken.setdefault(frame, set())
        overlaps = [
            (overlap(box, true), index)
            for index, true in enumerate(truth[frame])
            if index not in used
        ]
        best, index = max(overlaps, default=(0.0, -1))
        hits.append(best >= iou)
        if best >= iou:
            used.add(index)
    return hits
