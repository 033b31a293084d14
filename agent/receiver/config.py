"""Settings of a receiver, given as flags."""

from dataclasses import dataclass
from pathlib import Path

from agent.delivery.config import BrokerConfig


@dataclass(frozen=True, slots=True)
class ReceiverConfig:
    """One receiver of one site."""

    broker: BrokerConfig
    site: str
    store_dir: Path
    devices_dir: Path  # <device>.pub, one public key each
    name: str = "receiver"
    retention_days: int = 90
    max_file_bytes: int = 16 << 30
    max_open_per_device: int = 64
    keep_free_bytes: int = 256 << 20  # of the disk, for the index and for other programs
    max_chunk_bytes: int = 256 << 10
    rate_bytes_per_s: int = 0  # 0: no limit
