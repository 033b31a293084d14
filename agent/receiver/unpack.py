"""Batches taken apart: a zstd frame of envelopes, a line each, never larger than we allow.

What a frame says of its size is checked first and bounds what is written; a window, a second frame
or lines beyond the bounds refuse it. Whatever it holds costs no more memory than that.
"""

import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from agent.core import log
from agent.core.errors import MalformedMessage
from agent.delivery.batch import TAKEN_FRAME_BYTES, TAKEN_PLAIN_BYTES, TAKEN_ROWS

MOST_DICTIONARIES = 64
MOST_DICTIONARY_BYTES = 1 << 20
_MAGIC = b"\x28\xb5\x2f\xfd"

_log = log.get(__name__)

Decompress = Callable[[bytes], bytes]


def is_batch(payload: bytes) -> bool:
    """Whether this is a frame of zstd, not a message."""
    return payload.startswith(_MAGIC)  # a skippable frame, which would count as empty, is none


class Unpacker:
    """Takes batches apart; used by one thread.

    Args:
        folder: of dictionaries, files of any name, found by the ids in them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: tuple[tuple[str, int, int], ...] = ()
        self._known: dict[int, Decompress] = {}

    def lines(self, frame: bytes) -> list[bytes]:
        """Give the envelopes of a batch as they would have come alone.

        Raises:
            MalformedMessage: naming the bound, or what is wrong with the frame.
        """
        import zstandard  # noqa: PLC0415 - most receivers never see a batch

        if len(frame) > TAKEN_FRAME_BYTES:
            raise MalformedMessage(f"batch of {len(frame)} bytes; allowed: {TAKEN_FRAME_BYTES}")
        try:
            plain = self._plain(frame)
        except zstandard.ZstdError as error:
            raise MalformedMessage(f"batch: {error}") from error
        rows = plain.count(b"\n") + 1
        if rows > TAKEN_ROWS:
            raise MalformedMessage(f"batch of {rows} lines; allowed: {TAKEN_ROWS}")
        return plain.split(b"\n")

    def _plain(self, frame: bytes) -> bytes:
        import zstandard  # noqa: PLC0415

        if not is_batch(frame):
            raise MalformedMessage("batch: not a frame of zstd")
        told = zstandard.get_frame_parameters(frame)
        if not 0 < told.content_size <= TAKEN_PLAIN_BYTES:
            is_named = told.content_size != zstandard.CONTENTSIZE_UNKNOWN
            raise MalformedMessage(
                f"batch: size of content {told.content_size if is_named else 'not named'};"
                f" allowed: 1 to {TAKEN_PLAIN_BYTES}"
            )
        if told.window_size > TAKEN_PLAIN_BYTES:
            raise MalformedMessage(
                f"batch: window {told.window_size}; allowed: {TAKEN_PLAIN_BYTES}"
            )
        return self._decompress(told.dict_id)(frame)

    def _decompress(self, dictionary_id: int) -> Decompress:
        if dictionary_id not in self._known:
            self._look()
        found = self._known.get(dictionary_id)
        if found is None:
            raise MalformedMessage(f"batch: dictionary {dictionary_id} is not in {self._folder}")
        return found

    def _look(self) -> None:
        """Read the folder again, if something in it has changed."""
        files = _files(self._folder)
        seen = tuple((str(path), size, changed) for path, size, changed in files)
        if self._known and seen == self._seen:
            return
        self._seen, self._known = seen, {0: _bounded(None)}
        for path, size_bytes, _ in files[:MOST_DICTIONARIES]:
            if size_bytes <= MOST_DICTIONARY_BYTES:
                self._add(path)

    def _add(self, path: Path) -> None:
        import zstandard  # noqa: PLC0415

        try:
            dictionary = zstandard.ZstdCompressionDict(path.read_bytes())
        except (OSError, ValueError, zstandard.ZstdError) as error:
            _log.warning("dictionary not usable", path=path, reason=error)
            return
        if dictionary.dict_id():
            self._known[dictionary.dict_id()] = _bounded(dictionary)
        else:
            _log.warning("dictionary not usable", path=path, reason="not one of zstd's")


def _bounded(dictionary: object) -> Decompress:
    """Give a decompressor whose output has exactly the room that the frame names."""
    import zstandard  # noqa: PLC0415

    made = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=TAKEN_PLAIN_BYTES)  # type: ignore[arg-type]
    return lambda frame: made.decompress(frame, allow_extra_data=False)


def _files(folder: Path) -> list[tuple[Path, int, int]]:
    """Give the files with size and time of change; what cannot be looked at is left out."""
    found = []
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            with suppress(OSError):
                told = path.stat()
                if stat.S_ISREG(told.st_mode):
                    found.append((path, told.st_size, told.st_mtime_ns))
    return found
