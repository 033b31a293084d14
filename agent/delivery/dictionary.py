"""Dictionaries of zstd for batches, trained on messages as they are sent.

A dictionary holds pieces of the messages that it was made of, device names among them.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from agent.core.errors import ConfigError, StorageError
from agent.core.store import read_only

MOST_SAMPLES = 10_000
LEAST_SAMPLES = 100
LEVEL = 3

_OUTBOX = "SELECT payload FROM outbox WHERE lane = 'telemetry' ORDER BY id DESC LIMIT ?"
_CENTRE = (
    "SELECT payload FROM message WHERE lane = 'telemetry' ORDER BY received_utc_ms DESC LIMIT ?"
)


def of_device(database: Path) -> list[bytes]:
    """Give telemetry that waits in a device's outbox, the newest first; StorageError."""
    return _read(database, _OUTBOX)


def of_centre(database: Path) -> list[bytes]:
    """Give telemetry that a receiver has stored, the newest first; StorageError."""
    return _read(database, _CENTRE)


def of_file(path: Path) -> list[bytes]:
    """Give the lines of a file, as `mosquitto_sub` writes them; ConfigError."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"dictionary: {path}: {error.strerror}") from error
    return [line for line in lines if line][:MOST_SAMPLES]


def train(samples: Sequence[bytes], size_bytes: int) -> bytes:
    """Make a dictionary of at most `size_bytes`; its id is made from its content.

    Raises:
        ConfigError: too few samples, or nothing in them that repeats.
    """
    import zstandard  # noqa: PLC0415 - only where somebody makes one

    if len(samples) < LEAST_SAMPLES:
        raise ConfigError(f"dictionary: {len(samples)} messages; allowed: from {LEAST_SAMPLES}")
    try:
        return zstandard.train_dictionary(size_bytes, list(samples), level=LEVEL).as_bytes()
    except zstandard.ZstdError as error:
        raise ConfigError(f"dictionary: {error}") from error


def _read(database: Path, query: str) -> list[bytes]:
    try:
        with closing(read_only(database)) as connection:
            return [row[0] for row in connection.execute(query, (MOST_SAMPLES,))]
    except sqlite3.Error as error:
        raise StorageError(f"store {database}: {error}") from error
