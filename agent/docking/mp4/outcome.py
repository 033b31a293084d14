"""What came of one way of rescuing."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one way has written and what it has left out."""

    way: str  # index: the file's own; search: by the good clip
    pictures: int
    left_out: int  # pictures found that no longer can be decoded rightly, or not whole
    media_bytes: int  # written
    lost_bytes: int  # of pictures left out, and between pictures where sound does not explain them
    sound_packets: int
    sound_left_out: int = 0  # packets
    told_pictures: int = 0  # by the file's index; 0 unknown
    gap_pictures: int = 0  # that time was left for, estimated
    moved: int = 0  # pictures whose time had to be changed
    told_size_px: tuple[int, int] | None = None  # by parameter sets among the pictures

    @property
    def is_whole(self) -> bool:
        """Whether nothing was left out."""
        return self.left_out == 0 and self.sound_left_out == 0
