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
    def __init__(self, source: Source, header: ModelHeader, writer: media.Writer) -> None:
        self._source = source
        self._ticks = header.picture_ticks
        self._writer = writer
        self._sifter = sift.Sifter(source, header)
        self._chain = Chain(header.reader())
        self._timeline: Timeline[sift.Picture] = Timeline(header.poc_step, header.reorder)
        self._largest_gap = _GAP_TIMES * header.largest_gap_bytes
        self._pictures = self._bytes = self._left_out = self._lost_bytes = 0

    def run(self, spans: tuple[Span, ...]) -> Outcome:
        for span in spans:
            reached = span[0]
            held: sift.Picture | None = None
            for picture in self._sifter.pictures(span):
                is_hole = self._is_hole(reached, picture.start)
                self._settle(held, span[1], is_hole=is_hole)
                if is_hole:
                    self._chain.lose()
                held, reached = picture, picture.end
            self._settle(held, span[1], is_hole=self._is_hole(reached, span[1]))
        for timed in self._timeline.finish():
            self._add(timed)
        return Outcome(
            way="search",
            pictures=self._pictures,
            left_out=self._left_out,
            media_bytes=self._bytes,
            lost_bytes=self._lost_bytes,
            sound_packets=0,
            moved=self._timeline.moved,
            told_size_px=self._sifter.told_size_px,
        )

    def _is_hole(self, start: int, end: int) -> bool:
        """Whether more stands between two pictures than sound; it is counted."""
        is_hole = end - start > self._largest_gap
        if is_hole:
            self._lost_bytes += end - start
        return is_hole

    def _settle(self, picture: sift.Picture | None, end: int, *, is_hole: bool) -> None:
        """Take a picture whose end was seen, or leave it out."""
        if picture is None:
            return
        if is_hole and not self._sifter.begins_within(picture.end, self._largest_gap, end):
            self._chain.lose()
            self._leave_out(picture)
        else:
            self._take(picture)

    def _take(self, picture: sift.Picture) -> None:
        turn = self._chain.admit(picture.head)
        if turn is None:
            self._leave_out(picture)
            return
        for timed in self._timeline.put(picture, turn):
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
