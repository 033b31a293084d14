"""Settings of a receiver, given as flags."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.config import NAME
from agent.core.errors import ConfigError
from agent.delivery.config import BrokerConfig

MOST_COPIES = 16
MOST_RETENTION_DAYS = 36_500
ENDPOINT = r"(https://[a-z0-9.-]+|http://(localhost|127\.0\.0\.1))(:[0-9]{1,5})?"
BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"


@dataclass(frozen=True, slots=True)
class BulkConfig:
    """The S3 bucket that large files go to."""

    endpoint: str  # as the devices reach it
    bucket: str
    region: str = "us-east-1"
    key_path: Path | None = None  # two lines, id and secret; None: the environment
    over_bytes: int = 64 << 20  # larger files go there
    part_bytes: int = 16 << 20  # at least; at most this much is sent twice

    def __post_init__(self) -> None:
        problems = []
        if not re.fullmatch(ENDPOINT, self.endpoint):
            problems.append(
                f"s3-endpoint: {self.endpoint!r}; allowed: https://host[:port], or http:// of this"
                " machine, which devices elsewhere turn down"
            )
        if not re.fullmatch(BUCKET, self.bucket):
            problems.append(f"s3-bucket: {self.bucket!r}; allowed: 3 to 63 of a-z 0-9 . -")
        if self.over_bytes < 0:
            problems.append(f"bulk-over: {self.over_bytes} bytes; allowed: 0 or more")
        if problems:
            raise ConfigError(*problems)


@dataclass(frozen=True, slots=True)
class ReceiverConfig:
    """One receiver of one site."""

    broker: BrokerConfig
    site: str
    store_dir: Path
    devices_dir: Path  # <device>.pub, one public key each
    name: str = "receiver"
    retention_days: int = 90
    copies: int = 1  # that the store's disks keep of each file: a mirror keeps two
    max_file_bytes: int = 16 << 30
    max_open_per_device: int = 64  # files held open; further ones are shelved, not refused
    max_incoming_per_device: int = 512  # transfers under way; beyond, the oldest starts anew later
    max_incoming_bytes_per_device: int = 64 << 30  # of transfers under way
    max_rejected_bytes: int = 4 << 30  # of files that were set aside; beyond, the oldest goes
    keep_free_bytes: int = 256 << 20  # of the disk, for the index and for other programs
    full_retry_s: int = 60  # what devices are told to wait when there is no room
    max_chunk_bytes: int = 256 << 10
    rate_bytes_per_s: int = 0  # 0: no limit
    ack_timeout_s: float = 30.0  # unacknowledged by the broker for so long: a new connection
    rotations: Sequence[Mapping[str, Any]] = ()  # how the key came about, if it is not the first
    dictionaries_dir: Path | None = None  # of zstd, for batches; None: dictionaries/ in the store
    replay_after_s: float = 60.0  # how long a missing number may be on its way
    bulk: BulkConfig | None = None

    def __post_init__(self) -> None:
        problems = [
            f"{key}: {value!r}; allowed: {NAME.allowed}"
            for key, value in (("site", self.site), ("name", self.name))
            if not re.fullmatch(NAME.regex, value)
        ]
        if not 0 <= self.retention_days <= MOST_RETENTION_DAYS:
            problems.append(
                f"retention_days: {self.retention_days}; allowed: 0 to {MOST_RETENTION_DAYS}"
            )
        if not 1 <= self.copies <= MOST_COPIES:
            problems.append(f"copies: {self.copies}; allowed: 1 to {MOST_COPIES}")
        if problems:
            raise ConfigError(*problems)
