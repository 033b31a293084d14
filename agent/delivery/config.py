"""Settings of the way to the centre: the broker, and how hard to try."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from agent.core.config import Doc, Length, Range, ReadableFile
from agent.core.errors import ConfigError

BULK_HOST = r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[1-9][0-9]{0,4})?"


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
    bulk_hosts: Annotated[
        tuple[str, ...],
        Doc(
            "Hosts, or host:port, that large files may be uploaded to when the centre hands out"
            " URLs; none: all go by MQTT."
        ),
        Length(0, 16),
    ] = ()
    bulk_ca_path: Annotated[
        Path | None,
        Doc("PEM file of the authority that signed their certificates; empty: the system's."),
        ReadableFile(),
    ] = None
    batch: Annotated[
        Literal["auto", "off"],
        Doc("Old telemetry compressed, many messages in one, where the centre signs for that."),
    ] = "auto"
    dictionary_path: Annotated[
        Path | None,
        Doc("Dictionary for these batches, made by `outpost dictionary`; the centre needs it too."),
        ReadableFile(),
    ] = None
    max_db_mb: Annotated[int, Doc("Share of the disk for the database, MiB."), Range(4, 65_536)] = (
        1024
    )

    def __post_init__(self) -> None:
        problems = [
            f"bulk_hosts: {host!r}; allowed: a host name or address, with :port if it is not 443"
            for host in self.bulk_hosts
            if not re.fullmatch(BULK_HOST, host)
        ]
        if self.bulk_hosts and self.file_form != "outpost":
            problems.append(
                f"bulk_hosts: of no use with file_form {self.file_form!r}; allowed: none"
            )
        if problems:
            raise ConfigError(*problems)


@dataclass(frozen=True, slots=True)
class RetentionConfig:
    """What stays on the disk of `state_dir`, for how long, and what goes first.

    What has no receipt of the centre yet never goes; nor does what a hold or a pin keeps.
    """

    max_gb: Annotated[
        float,
        Doc("Disk that everything may take together, in GB; 0: all but a small reserve"),
        Range(0, 1e6),
    ] = 0.0
    recordings_min_gb: Annotated[
        float,
        Doc("What recordings keep in GB when clips without a receipt need their room"),
        Range(0.01, 1e6),
    ] = 1.0
    receipted_hours: Annotated[
        float, Doc("Hours that a clip stays here at least, signed for or not"), Range(0, 87_600)
    ] = 24.0
    receipted_days: Annotated[
        float, Doc("Days after which a clip goes that the centre has signed for"), Range(0.01, 3650)
    ] = 30.0
    receipted_max_gb: Annotated[
        float, Doc("Share of clips that the centre has signed for, in GB; 0: none"), Range(0, 1e6)
    ] = 0.0
    export_days: Annotated[
        float, Doc("Days after which what lies in exports/ goes"), Range(0.01, 3650)
    ] = 30.0
    quarantine_max_gb: Annotated[
        float,
        Doc(
            "Share of quarantine, in GB: beyond it files go that are past recording.quarantine_days"
        ),
        Range(0, 1e6),
    ] = 2.0
    clips_share: Annotated[
        float,
        Doc(
            "Share of all kept for clips: with less room no video of info events, with less than"
            " half of it none of warnings"
        ),
        Range(0, 0.5),
    ] = 0.1
    low_kinds: Annotated[
        tuple[str, ...], Doc("Kinds of events whose clips count as info"), Length(0, 64)
    ] = ()
    high_kinds: Annotated[
        tuple[str, ...], Doc("Kinds of events whose clips count as alarm"), Length(0, 64)
    ] = ()
    history_days: Annotated[
        float, Doc("Days that events and clips without files stay in the database"), Range(1, 3650)
    ] = 90.0

    def __post_init__(self) -> None:
        problems = []
        if self.receipted_hours / 24 > self.receipted_days:
            problems.append(
                f"receipted_hours {self.receipted_hours:g}; allowed: up to receipted_days,"
                f" {self.receipted_days:g} days"
            )
        if 0 < self.max_gb < self.recordings_min_gb:
            problems.append(
                f"recordings_min_gb {self.recordings_min_gb:g}; allowed: up to max_gb,"
                f" {self.max_gb:g}"
            )
        if both := sorted(set(self.low_kinds) & set(self.high_kinds)):
            problems.append(f"low_kinds, high_kinds: {both[0]!r} stands in both; allowed: one")
        if problems:
            raise ConfigError(*problems)
