"""Batches: rows of the backfill that go together, as one zstd frame of their envelopes.

A frame holds rows of one kind, a line each, every one the bytes that would have been published
alone. Its id is made from its bytes, so that both sides know it without a word more; the centre's
receipt names it once every row in it has been dealt with.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.core.errors import ConfigError
from agent.core.model import Row

LEAST_ROWS = 8  # fewer go as they are
MOST_ROWS = 256
MOST_PLAIN_BYTES = 128 * 1024
# What a centre has to take: room for other devices than this one.
TAKEN_ROWS = 1000
TAKEN_FRAME_BYTES = 256 * 1024
TAKEN_PLAIN_BYTES = 1 << 20
LEVEL = 3
_ID_HEX = 32

Compress = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Batch:
    """One frame and the rows that it stands for."""

    batch_id: str
    kind: str  # first part of the rows' kinds, last part of the batch's topic
    row_ids: tuple[int, ...]
    payload: bytes


def batch_id(frame: bytes) -> str:
    """Give a frame's id: the first half of its SHA-256."""
    return hashlib.sha256(frame).hexdigest()[:_ID_HEX]


def groups(rows: Sequence[Row], root: str) -> dict[str, list[Row]]:
    """Sort rows by the first part of their kinds, in their order; leaves out what goes alone.

    Alone go rows that need a receipt of their own, retained ones, and those of other topics than
    the device's, below `root`.
    """
    found: dict[str, list[Row]] = {}
    start = f"{root}/"
    for row in rows:
        if row.needs_receipt or row.is_retained or not row.topic.startswith(start):
            continue
        if b"\n" in row.payload:  # compact JSON has none; a damaged row might
            continue
        found.setdefault(row.topic[len(start) :].partition("/")[0], []).append(row)
    return found


def pack(kind: str, rows: Sequence[Row], compress: Compress) -> Batch:
    """Make a batch of rows of one kind."""
    frame = compress(b"\n".join([row.payload for row in rows]))
    return Batch(batch_id(frame), kind, tuple([row.row_id for row in rows]), frame)


def compressor(dictionary: Path | None = None) -> Compress:
    """Give what makes frames; to be used by one thread.

    Raises:
        ConfigError: the dictionary cannot be read or is none of zstd's.
    """
    import zstandard  # noqa: PLC0415 - only where something has piled up

    trained = None
    if dictionary is not None:
        try:
            trained = zstandard.ZstdCompressionDict(dictionary.read_bytes())
        except OSError as error:
            raise ConfigError(f"delivery.dictionary_path: {dictionary}: {error}") from error
        if not trained.dict_id():
            raise ConfigError(f"delivery.dictionary_path: {dictionary}: no dictionary of zstd")
        trained.precompute_compress(level=LEVEL)
    made = zstandard.ZstdCompressor(level=LEVEL, dict_data=trained, write_checksum=True)
    return made.compress
