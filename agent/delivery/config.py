"""Settings of the way to the centre: the broker, and how hard to try."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from agent.core.config import Doc, Range, ReadableFile
from agent.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """Where the broker is and who we are to it; TLS when `ca_path` is set."""

    host: Annotated[str, Doc("Name or address of the site's MQTT v5 broker.")] = "127.0.0.1"
    port: Annotated[int, Doc("Its port; 8883 is usual with TLS."), Range(1, 65535)] = 1883
    keepalive_s: Annotated[
        int, Doc("Silence after which the link is probed, seconds."), Range(5, 3600)
    ] = 30
    user: Annotated[str, Doc("User name; empty: none.")] = ""
    password_path: Annotated[
        Path | None, Doc("File with the password, one line."), ReadableFile()
    ] = None
    ca_path: Annotated[
        Path | None,
        Doc("PEM file of the authority that signed the broker's certificate."),
        ReadableFile(),
    ] = None
    cert_path: Annotated[
        Path | None, Doc("PEM file of this device's certificate."), ReadableFile()
    ] = None
    key_path: Annotated[Path | None, Doc("PEM file of its private key."), ReadableFile()] = None

    def __post_init__(self) -> None:
        problems = []
        if not self.host or any(letter.isspace() or letter == "\0" for letter in self.host):
            problems.append(f"host: {self.host!r}; allowed: a host name or an address")
        if (self.cert_path is None) != (self.key_path is None):
            problems.append("cert_path, key_path: allowed: both or neither")
        if self.cert_path is not None and self.ca_path is None:
            problems.append("ca_path: missing; a certificate is of use only with TLS")
        if self.password_path is not None and not self.user:
            problems.append("user: missing; a password needs a user name")
        if problems:
            raise ConfigError(*problems)


@dataclass(frozen=True, slots=True)
class DeliveryConfig:
    """Whose receipts count, and the time limits and windows of delivery."""

    receiver_key_path: Annotated[
        Path,
        Doc("PEM file of the centre's public key: only receipts it signed count."),
        ReadableFile(),
    ]
    ack_timeout_s: Annotated[
        float, Doc("Unacknowledged for so long on a live link: reconnect."), Range(0.2, 600)
    ] = 30.0
    receipt_timeout_s: Annotated[
        float,
        Doc("Ask again when no receipt came for so long; doubles up to 300 s."),
        Range(0.2, 300),
    ] = 30.0
    session_expiry_s: Annotated[
        int, Doc("How long the broker keeps what waits for this device."), Range(0, 31_536_000)
    ] = 604_800
    reconnect_max_s: Annotated[
        float, Doc("Longest random wait between two attempts to connect."), Range(0.1, 3600)
    ] = 60.0
    window: Annotated[
        int, Doc("Most unacknowledged messages; the broker's own limit counts too."), Range(1, 1000)
    ] = 64
    refused_retry_s: Annotated[
        float,
        Doc("Offer files again that the centre refused, after so long."),
        Range(1, 604_800),
    ] = 3600.0
    file_form: Annotated[
        Literal["outpost", "emqx"],
        Doc("How files are sent; emqx: by its file transfer, and kept until a signed receipt too."),
    ] = "outpost"
    max_db_mb: Annotated[int, Doc("Share of the disk for the database, MiB."), Range(4, 65_536)] = (
        1024
    )
