"""The rescue of a file without an index: pictures are found one by one and timed by their count."""

from pathlib import Path

from agent.core.errors import StorageError
from agent.docking.mp4 import media, sift, template
from agent.docking.mp4.boxes import Span
from agent.docking.mp4.modelheader import ModelHeader
from agent.docking.mp4.outcome import Outcome
from agent.docking.mp4.playorder import Chain, Timed, Timeline
from agent.docking.mp4.source import Source

_GAP_TIMES = 2  # of the largest one of the good clip: what is more than sound may be pictures

_ENOUGH_PICTURES = 30  # for a mean
_MOST_GAP_S = 60  # that a hole is taken for: what is longer may never have been pictures


def write(
    source: Source,
    spans: tuple[Span, ...],
    header: ModelHeader,
    target: Path,
    about: dict[str, str],
) -> Outcome:
    """Write what is found; sound is left out, as nothing tells where one piece of it ends.

    Raises:
        StorageError: a disk refuses.
        Unsupported: the model header is none.
    """
    empty = template.empty_mp4(header.sample_entry, header.matrix, header.timescale)
    with media.template(empty) as stream, media.Writer(target, about) as writer:
        writer.add_stream(0, stream)
        return _Search(source, header, writer).run(spans)


class _Search:
    """Goes through a file once; counts what is missing between pictures, to leave time for it."""

    def __init__(self, source: Source, header: ModelHeader, writer: media.Writer) -> None:
        self._header = header
        self._source = source
        self._ticks = header.picture_ticks
        self._writer = writer
        self._sifter = sift.Sifter(source, header)
        self._chain = Chain(header.reader())
        self._timeline: Timeline[sift.Picture] = Timeline(header.poc_step, header.reorder)
        self._largest_gap = _GAP_TIMES * header.largest_gap_bytes
        self._pictures = self._bytes = self._left_out = self._lost_bytes = 0
        self._missing: float = 0  # pictures since the last one taken
        self._taken = self._taken_bytes = 0

    def run(self, spans: tuple[Span, ...]) -> Outcome:
        for span in spans:
            reached = span[0]
            held: sift.Picture | None = None
            for picture in self._sifter.pictures(span):
                self._settle(held, (reached, picture.start), span[1])
                held, reached = picture, picture.end
            self._settle(held, (reached, span[1]), span[1])
        for timed in self._timeline.finish():
            self._add(timed)
        return Outcome(
            way="search",
            pictures=self._pictures,
            left_out=self._left_out,
            media_bytes=self._bytes,
            lost_bytes=self._lost_bytes,
            sound_packets=0,
            gap_pictures=self._timeline.left_open,
            moved=self._timeline.moved,
            told_size_px=self._sifter.told_size_px,
        )

    def _usual_bytes(self) -> float:
        """Give what a picture and the sound beside it take, of this recording if it has shown."""
        if self._taken < _ENOUGH_PICTURES:
            return max(1, self._header.picture_bytes + self._header.gap_bytes)
        return self._taken_bytes / self._taken + self._header.gap_bytes

    def _settle(self, picture: sift.Picture | None, gap: Span, end: int) -> None:
        """Take a picture whose end was seen, or leave it out; and what stands after it."""
        gap_bytes = gap[1] - gap[0]
        is_hole = gap_bytes > self._largest_gap  # more than sound
        if picture is not None:
            if is_hole and not self._sifter.begins_within(picture.end, self._largest_gap, end):
                self._chain.lose()
                self._leave_out(picture)
                self._missing += 1
            else:
                self._take(picture)
        if is_hole:
            self._chain.lose()
            self._lost_bytes += gap_bytes
            self._missing += min(gap_bytes / self._usual_bytes(), _MOST_GAP_S * self._header.fps)

    def _take(self, picture: sift.Picture) -> None:
        turn = self._chain.admit(picture.head)
        if turn is None:
            self._leave_out(picture)
            self._missing += 1
            return
        missing = round(self._missing) if self._taken else 0
        self._missing = 0
        self._taken += 1
        self._taken_bytes += picture.end - picture.start
        for timed in self._timeline.put(picture, turn, missing):
            self._add(timed)

    def _leave_out(self, picture: sift.Picture) -> None:
        self._left_out += 1
        self._lost_bytes += picture.end - picture.start

    def _add(self, timed: Timed[sift.Picture]) -> None:
        place, count = timed.item.start, timed.item.end - timed.item.start
        payload = self._source.read(place, count)
        if len(payload) < count:
            raise StorageError(f"{self._source.path}: ends before byte {place + count}")
        if self._writer.add(
            media.Sample(
                stream=0,
                is_video=True,
                place=place,
                dts=timed.dts * self._ticks,
                pts=timed.pts * self._ticks,
                duration=self._ticks,
                is_key=timed.item.head.is_key,
                payload=payload,
            )
        ):
            self._pictures += 1
            self._bytes += count
        else:
            self._leave_out(timed.item)
