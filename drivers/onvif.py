"""An ONVIF camera: finds its RTSP address, again at every session, and takes that.

A camera whose address or path changes after an update is found all the same. The stream must be
on the camera itself: what it says of other hosts, or of other schemes, is refused.
"""

import ipaddress
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol
from urllib.parse import urlsplit, urlunsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from agent.core.clock import NS_PER_S, Clock
from agent.core.config import Doc, Range, ReadableFile
from agent.core.errors import AuthRefused, ConfigError, SourceLost, Unsupported
from agent.core.model import Packet, StreamInfo
from drivers import _soap as soap

DEVICE: Final = "http://www.onvif.org/ver10/device/wsdl"
MEDIA: Final = "http://www.onvif.org/ver10/media/wsdl"
MEDIA2: Final = "http://www.onvif.org/ver20/media/wsdl"
SCHEMA: Final = "http://www.onvif.org/ver10/schema"
MAX_PROFILES: Final = 64


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of a camera that speaks ONVIF."""

    host: Annotated[str, Doc("Address of the camera, without a scheme")]
    port: Annotated[int, Doc("Port of its ONVIF service"), Range(1, 65_535)] = 80
    user: Annotated[str, Doc("User name at the camera")] = ""
    password_path: Annotated[
        Path | None, Doc("File whose first line is the password"), ReadableFile()
    ] = None
    profile: Annotated[
        str, Doc("`main` is the largest picture, `sub` the smallest, else a profile's token")
    ] = "main"
    transport: Annotated[
        Literal["tcp", "udp", "auto"],
        Doc("How packets come; auto tries tcp, then udp if the camera turns tcp down"),
    ] = "tcp"
    open_timeout_s: Annotated[float, Doc("Longest wait for an answer"), Range(1, 60)] = 10.0
    stall_s: Annotated[
        float, Doc("Silence after which the stream counts as lost"), Range(1, 60)
    ] = 4.0

    def __post_init__(self) -> None:
        if not self.host or not self.host.isprintable() or set(self.host) & set(" /@?#"):
            raise ConfigError(f"host: {self.host!r}; allowed: a host name or an IP address")


@dataclass(frozen=True, slots=True)
class Profile:
    """One of the streams that a camera offers."""

    token: str
    name: str
    codec: str  # as the camera calls it: H264, H265, JPEG
    width_px: int
    height_px: int
    media: str  # namespace of the service that knows it


@dataclass(frozen=True, slots=True)
class About:
    """What a camera says of itself."""

    manufacturer: str
    model: str
    firmware: str
    clock_skew_s: float  # its clock minus ours


class Source(Protocol):
    """What gives the packets of an address; the RTSP driver does."""

    def open(self) -> StreamInfo:
        """Connect."""
        ...

    def packets(self) -> Iterator[Packet]:
        """Give packets."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


Connect = Callable[[str], Source]
"""Makes the source of an RTSP address."""


class Device:
    """Asks one camera; each call is one exchange on a connection of its own."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._login: soap.Login | None = None
        host = f"[{config.host}]" if ":" in config.host else config.host
        self._base = f"http://{host}:{config.port}"

    def about(self) -> About:
        """Ask who it is."""
        answer = self._ask("device_service", f'<GetDeviceInformation xmlns="{DEVICE}"/>')
        return About(
            manufacturer=soap.text_of(answer, "Manufacturer")[:64],
            model=soap.text_of(answer, "Model")[:64],
            firmware=soap.text_of(answer, "FirmwareVersion")[:64],
            clock_skew_s=self._known_login().skew.total_seconds(),
        )

    def profiles(self) -> list[Profile]:
        """Give the profiles with a picture, the largest first.

        Raises:
            Unsupported: there is none.
        """
        found: list[Profile] = []
        for media, path in ((MEDIA2, self._service(MEDIA2)), (MEDIA, self._service(MEDIA))):
            if not path or found:
                continue
            types = "<Type>All</Type>" if media == MEDIA2 else ""
            answer = self._ask(path, f'<GetProfiles xmlns="{media}">{types}</GetProfiles>')
            found = [profile for item in answer if (profile := _profile(item, media)) is not None]
        if not found:
            raise Unsupported(f"{self._base}: no profile with a picture; allowed: at least one")
        found.sort(key=lambda item: (-item.width_px * item.height_px, item.token))
        return found[:MAX_PROFILES]

    def chosen(self) -> Profile:
        """Give the profile that the configuration asks for."""
        profiles = self.profiles()
        wanted = self._config.profile
        if wanted in ("", "main"):
            return profiles[0]
        if wanted == "sub":
            return profiles[-1]
        for profile in profiles:
            if wanted in (profile.token, profile.name):
                return profile
        known = ", ".join(profile.token for profile in profiles)
        raise Unsupported(f"{self._base}: no profile {wanted!r}; allowed: main, sub, {known}")

    def stream_url(self, profile: Profile) -> str:
        """Give the RTSP address of a profile, on this camera and without a login in it."""
        token = f"<ProfileToken>{escape(profile.token)}</ProfileToken>"
        if profile.media == MEDIA2:
            body = f'<GetStreamUri xmlns="{MEDIA2}"><Protocol>RTSP</Protocol>{token}</GetStreamUri>'
        else:
            body = (
                f'<GetStreamUri xmlns="{MEDIA}"><StreamSetup><Stream xmlns="{SCHEMA}">RTP-Unicast'
                f'</Stream><Transport xmlns="{SCHEMA}"><Protocol>RTSP</Protocol></Transport>'
                f"</StreamSetup>{token}</GetStreamUri>"
            )
        answer = self._ask(self._service(profile.media), body)
        return self._checked(soap.text_of(answer, "Uri"), ("rtsp", "rtsps"))

    def snapshot(self, profile: Profile) -> bytes:
        """Give a JPEG picture.

        Raises:
            Unsupported: it gives none.
        """
        token = f"<ProfileToken>{escape(profile.token)}</ProfileToken>"
        body = f'<GetSnapshotUri xmlns="{profile.media}">{token}</GetSnapshotUri>'
        answer = self._ask(self._service(profile.media), body)
        url = self._checked(soap.text_of(answer, "Uri"), ("http",))
        picture = soap.fetch(url, self._known_login(), self._config.open_timeout_s)
        if not picture.startswith(b"\xff\xd8"):
            raise Unsupported(f"{url}: no JPEG; allowed: image/jpeg")
        return picture

    def _ask(self, service: str, body: str) -> ET.Element:
        url = service if "://" in service else f"{self._base}/onvif/{service}"
        login, timeout_s = self._known_login(), self._config.open_timeout_s
        return soap.call(url, body, login, self._now(), timeout_s)

    def _service(self, namespace: str) -> str:
        """Give the address of a service, empty if the camera has none."""
        flag = "<IncludeCapability>false</IncludeCapability>"
        body = f'<GetServices xmlns="{DEVICE}">{flag}</GetServices>'
        try:
            answer = self._ask("device_service", body)
        except Unsupported:
            return "media_service" if namespace == MEDIA else ""  # older than GetServices
        for item in answer:
            if soap.text_of(item, "Namespace") == namespace:
                return self._checked(soap.text_of(item, "XAddr"), ("http",))
        return ""

    def _known_login(self) -> soap.Login:
        """Give the login, in the camera's time, which it tells anybody."""
        if self._login is None:
            body = f'<GetSystemDateAndTime xmlns="{DEVICE}"/>'
            url = f"{self._base}/onvif/device_service"
            now, timeout_s = self._now(), self._config.open_timeout_s
            try:
                answer = soap.call(url, body, soap.Login(), now, timeout_s)
                theirs = soap.camera_time(answer)
            except (AuthRefused, Unsupported):
                theirs = None
            skew = timedelta(0) if theirs is None else theirs - now
            self._login = soap.Login(self._config.user, self._password(), skew)
        return self._login

    def _checked(self, url: str, schemes: tuple[str, ...]) -> str:
        """Give an address of the camera's with our host in it, if it is one of the camera's own.

        Cameras behind a router give their inner address: the host is ours, its path and port stay.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise Unsupported(
                f"{self._base}: address {url[:80]!r}; allowed: on the camera"
            ) from None
        if parts.scheme not in schemes or not parts.hostname or not url.isprintable():
            allowed = " or ".join(f"{scheme}://" for scheme in schemes)
            raise Unsupported(f"{self._base}: address {url[:80]!r}; allowed: {allowed}")
        if not _is_plausible(parts.hostname, self._config.host):
            raise Unsupported(
                f"{self._base}: address {url[:80]!r} on another host; allowed: {self._config.host}"
            )
        host = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        return urlunsplit(parts._replace(netloc=host if port is None else f"{host}:{port}"))

    def _password(self) -> str:
        if self._config.password_path is None:
            return ""
        try:
            return self._config.password_path.read_text().splitlines()[0]
        except (OSError, UnicodeDecodeError, IndexError):
            raise AuthRefused(
                f"{self._config.password_path}: no password; allowed: a text file of one line"
            ) from None

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.utc_ns() / NS_PER_S, UTC)


class OnvifSource:
    """Gives the packets of a profile."""

    def __init__(self, config: Config, clock: Clock, connect: Connect) -> None:
        self._config = config
        self._clock = clock
        self._connect = connect
        self._lock = threading.Lock()
        self._inner: Source | None = None

    def open(self) -> StreamInfo:
        """See `Source.open`."""
        self.close()
        device = Device(self._config, self._clock)
        inner = self._connect(device.stream_url(device.chosen()))
        with self._lock:
            self._inner = inner
        return inner.open()

    def packets(self) -> Iterator[Packet]:
        """See `Source.packets`."""
        inner = self._inner
        if inner is None:
            raise SourceLost(f"onvif://{self._config.host}: not open")
        yield from inner.packets()

    def close(self) -> None:
        """See `Source.close`."""
        with self._lock:
            inner, self._inner = self._inner, None
        if inner is not None:
            inner.close()


def build(config: Config, clock: Clock, connect: Connect) -> OnvifSource:
    """Make the source; nothing is asked yet."""
    return OnvifSource(config, clock, connect)


def _profile(item: ET.Element, media: str) -> Profile | None:
    """Read a profile; None for one without a picture."""
    coder = soap.first(item, "VideoEncoderConfiguration")
    coder = soap.first(item, "VideoEncoder") if coder is None else coder
    token = item.get("token", "")
    if coder is None or not token:
        return None
    try:
        width = int(soap.text_of(coder, "Resolution", "Width"))
        height = int(soap.text_of(coder, "Resolution", "Height"))
    except ValueError:
        return None
    name = soap.text_of(item, "Name")[:64]
    return Profile(token[:64], name, soap.text_of(coder, "Encoding")[:16], width, height, media)


def _is_plausible(said: str, ours: str) -> bool:
    """Whether a host named by the camera may be the camera itself, seen from its own side."""
    if said == ours:
        return True
    try:
        inner = ipaddress.ip_address(said)
    except ValueError:
        return False
    return inner.is_private and not inner.is_link_local and not inner.is_loopback
