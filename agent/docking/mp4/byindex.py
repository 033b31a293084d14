"""The rescue of a file whose own index is whole: what it speaks of and is there is kept.

So are fragments of a fragmented MP4 that was cut, and all of the sound that lies before the damage.
"""

from pathlib import Path

from agent.docking.mp4 import media, nals
from agent.docking.mp4.bits import Implausible
from agent.docking.mp4.coded import Codec
from agent.docking.mp4.outcome import Outcome
from agent.docking.mp4.playorder import Chain


def write(
    path: Path, size_bytes: int, codec: Codec, target: Path, about: dict[str, str]
) -> Outcome:
    """Write what the index speaks of as far as it is there.

    Args:
        path: the broken file.
        size_bytes: of it.
        codec: reads its pictures.
        target: what is written.
        about: texts for its head.

    Raises:
        StorageError: the file cannot be opened by its index, or a disk refuses.
    """
    keep = _Keep(size_bytes, codec)
    written = {True: 0, False: 0}
    count = 0
    with media.Clip(path) as clip, media.Writer(target, about) as writer:
        for stream in (clip.video, *clip.sounds):
            writer.add_stream(stream.index, stream)
        for sample in clip.samples(with_sound=True):
            if keep.wants(sample) and writer.add(sample):
                written[sample.is_video] += 1
                count += len(sample.payload)
        told, refused = clip.told_pictures, writer.refused
    missing = max(0, told - written[True] - keep.left_out[True] - refused)
    return Outcome(
        way="index",
        pictures=written[True],
        left_out=keep.left_out[True] + refused + missing,
        media_bytes=count,
        lost_bytes=keep.lost_bytes,
        sound_packets=written[False],
        sound_left_out=keep.left_out[False],
        told_pictures=told,
    )


class _Keep:
    """Chooses the packets that are whole."""

    def __init__(self, size_bytes: int, codec: Codec) -> None:
        self._size_bytes = size_bytes
        self._codec = codec
        self._chain = Chain(codec)
        self.left_out = {True: 0, False: 0}  # by whether it is a picture
        self.lost_bytes = 0

    def wants(self, sample: media.Sample) -> bool:
        """Whether a packet is in the file and follows from what was kept."""
        is_there = 0 <= sample.place <= self._size_bytes - len(sample.payload)
        if not sample.is_video:
            is_kept = is_there and any(sample.payload)
        else:
            is_kept = is_there and self._is_picture(sample.payload)
        if not is_kept:
            self.left_out[sample.is_video] += 1
            self.lost_bytes += len(sample.payload)
        return is_kept

    def _is_picture(self, payload: bytes) -> bool:
        try:
            slices = [
                self._codec.read(nal)
                for nal in nals.units(payload)
                if self._codec.is_slice(self._codec.kind(nal))
            ]
        except (Implausible, ValueError, IndexError):
            slices = []
        if not slices or not slices[0].is_first:
            self._chain.lose()
            return False
        return self._chain.admit(slices[0]) is not None
