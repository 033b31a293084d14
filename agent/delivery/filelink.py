"""The file link itself: its sessions, and what is told of it."""

from dataclasses import dataclass

from agent.core.clock import Clock
from agent.core.wire import Topics
from agent.delivery.config import BrokerConfig
from agent.delivery.link import LinkStatus, SessionFactory
from agent.delivery.session import MqttSession, SessionOptions

CLIENT_SUFFIX = ".f"
SESSION_EXPIRY_S = 86_400


@dataclass(frozen=True, slots=True)
class TransfersStatus:
    """What the file link is doing, for beats and people."""

    link: LinkStatus
    open: int
    sent_bytes: int
    receipted: int
    refused: int
    bad_messages: int
    window_bytes: int
    chunk_bytes: int
    bandwidth_bytes_per_s: int
    delay_ms: int
    last_receipt_utc_ns: int | None
    is_centre_full: bool


def file_sessions(broker: BrokerConfig, topics: Topics, clock: Clock) -> SessionFactory:
    """Make sessions of the file link."""
    options = SessionOptions(f"{topics.device}{CLIENT_SUFFIX}", expiry_s=SESSION_EXPIRY_S)
    return lambda: MqttSession(broker, options, clock)
