"""An ONVIF camera: finds its RTSP address, again at every session, and takes that.

A camera whose address or path changes after an update is found all the same. The stream must be
on the camera itself: what it says of other hosts, or of other schemes, is refused.
"""

import http.client
import ipaddress
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol
from urllib.parse import urlsplit, urlunsplit
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from agent.core import log
from agent.core.clock import NS_PER_S, Clock
from agent.core.config import Doc, Range, ReadableFile
from agent.core.errors import AuthRefused, ConfigError, SourceLost, Unsupported
from agent.core.model import Packet, StreamInfo
from drivers import _soap as soap
from drivers import _web as web
from drivers._login import Login

DEVICE: Final = "http://www.onvif.org/ver10/device/wsdl"
MEDIA: Final = "http://www.onvif.org/ver10/media/wsdl"
MEDIA2: Final = "http://www.onvif.org/ver20/media/wsdl"
SCHEMA: Final = "http://www.onvif.org/ver10/schema"
MAX_PROFILES: Final = 64
MAX_NAME: Final = 64
JPEG: Final = b"\xff\xd8"


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
    """Asks one camera; all that it is asked takes at most `open_timeout_s` from the first on."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._line = web.Line(config.open_timeout_s)
        self._skew: timedelta | None = None
        self._services: Mapping[str, str] | None = None
        self._host = f"[{config.host}]" if ":" in config.host else config.host
        self._base = f"http://{self._host}:{config.port}"

    def about(self) -> About:
        """Ask who it is."""
        answer = self._ask(self._first, f'<GetDeviceInformation xmlns="{DEVICE}"/>')
        return About(
            manufacturer=_told(answer, "Manufacturer"),
            model=_told(answer, "Model"),
            firmware=_told(answer, "FirmwareVersion"),
            clock_skew_s=self._clock_skew().total_seconds(),
        )

    def profiles(self) -> list[Profile]:
        """Give the profiles with a picture, the largest first.

        Raises:
            Unsupported: there is none.
        """
        found: list[Profile] = []
        for media in (MEDIA2, MEDIA):
            url = self._media_urls().get(media)
            if url is None or found:
                continue
            types = "<Type>All</Type>" if media == MEDIA2 else ""
            answer = self._ask(url, f'<GetProfiles xmlns="{media}">{types}</GetProfiles>')
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
        answer = self._ask(self._media_urls()[profile.media], body)
        return self._checked(soap.text_of(answer, "Uri"), ("rtsp", "rtsps"))

    def snapshot(self, profile: Profile) -> bytes:
        """Give a JPEG picture.

        Raises:
            Unsupported: it gives none.
        """
        token = f"<ProfileToken>{escape(profile.token)}</ProfileToken>"
        body = f'<GetSnapshotUri xmlns="{profile.media}">{token}</GetSnapshotUri>'
        answer = self._ask(self._media_urls()[profile.media], body)
        url = self._checked(soap.text_of(answer, "Uri"), ("http",))
        picture = self._line.send_signed("GET", url, self._login())
        if picture.status != http.client.OK or not picture.body.startswith(JPEG):
            raise Unsupported(f"{url}: status {picture.status}, no JPEG; allowed: image/jpeg")
        return picture.body

    def close(self) -> None:
        """End what is being asked; from any thread."""
        self._line.close()

    @property
    def _first(self) -> str:
        """The one address that the standard fixes."""
        return f"{self._base}/onvif/device_service"

    def _ask(self, url: str, body: str) -> ET.Element:
        token = soap.Token(self._login(), self._now() + self._clock_skew())
        return soap.call(self._line, url, body, token)

    def _media_urls(self) -> Mapping[str, str]:
        """Give the addresses of the media services that it has, by namespace."""
        if self._services is None:
            flag = "<IncludeCapability>false</IncludeCapability>"
            body = f'<GetServices xmlns="{DEVICE}">{flag}</GetServices>'
            try:
                told = self._ask(self._first, body)
                found = {_text(one, "Namespace"): _text(one, "XAddr") for one in told}
            except Unsupported:
                found = {MEDIA: self._older_media_url()}
            self._services = {
                name: self._checked(found[name], ("http",))
                for name in (MEDIA, MEDIA2)
                if found.get(name)
            }
        return self._services

    def _older_media_url(self) -> str:
        """Ask a camera that is older than GetServices."""
        body = f'<GetCapabilities xmlns="{DEVICE}"><Category>Media</Category></GetCapabilities>'
        try:
            told = _text(self._ask(self._first, body), "Media", "XAddr")
        except Unsupported:
            told = ""
        return told or f"{self._base}/onvif/media_service"

    def _clock_skew(self) -> timedelta:
        """Give how far its clock is from ours; it tells anybody, and a login needs it."""
        if self._skew is None:
            try:
                answer = soap.call(
                    self._line, self._first, f'<GetSystemDateAndTime xmlns="{DEVICE}"/>'
                )
                theirs = soap.camera_time(answer)
            except (AuthRefused, Unsupported):
                theirs = None
            self._skew = timedelta(0) if theirs is None else theirs - self._now()
        return self._skew

    def _checked(self, url: str, schemes: tuple[str, ...]) -> str:
        """Give an address of the camera's with our host in it, if it is one of the camera's own.

        Cameras behind a router give their inner address: the host is ours, its path and port stay.
        """
        shown = web.plain(log.redact(url))
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise Unsupported(f"{self._base}: address {shown!r}; allowed: on the camera") from None
        if parts.scheme not in schemes or not parts.hostname or not url.isprintable():
            allowed = " or ".join(f"{scheme}://" for scheme in schemes)
            raise Unsupported(f"{self._base}: address {shown!r}; allowed: {allowed}")
        if not _is_plausible(parts.hostname, self._config.host):
            raise Unsupported(
                f"{self._base}: address {shown!r} on another host; allowed: {self._config.host}"
            )
        netloc = self._host if port is None else f"{self._host}:{port}"
        return urlunsplit(parts._replace(netloc=netloc, fragment=""))

    def _login(self) -> Login:
        return Login(self._config.user, self._password())

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
        self._current: Source | Device | None = None  # what `close` ends

    def open(self) -> StreamInfo:
        """See `Source.open`; `close` from another thread ends it."""
        self.close()
        device = Device(self._config, self._clock)
        self._hold(device)
        url = device.stream_url(device.chosen())
        inner = self._connected(url)
        with self._lock:
            if self._current is not device:
                raise SourceLost(f"onvif://{self._config.host}: closed")
            self._current = self._inner = inner
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
            current, self._current, self._inner = self._current, None, None
        if current is not None:
            current.close()

    def _hold(self, device: Device) -> None:
        with self._lock:
            self._current = device

    def _connected(self, url: str) -> Source:
        try:
            return self._connect(url)
        except ConfigError as error:
            # Of the camera's making, not of a person's: one camera must not end the agent.
            raise Unsupported(f"onvif://{self._config.host}: its stream's {error}") from None


def build(config: Config, clock: Clock, connect: Connect) -> OnvifSource:
    """Make the source; nothing is asked yet."""
    return OnvifSource(config, clock, connect)


def _profile(item: ET.Element, media: str) -> Profile | None:
    """Read a profile; None for one without a picture."""
    coder = soap.first(item, "VideoEncoderConfiguration")
    coder = soap.first(item, "VideoEncoder") if coder is None else coder
    token = item.get("token", "")
    if coder is None or not token or len(token) > MAX_NAME or not token.isprintable():
        return None
    try:
        width = int(soap.text_of(coder, "Resolution", "Width"))
        height = int(soap.text_of(coder, "Resolution", "Height"))
    except ValueError:
        return None
    return Profile(token, _told(item, "Name"), _told(coder, "Encoding"), width, height, media)


def _text(item: ET.Element, *path: str) -> str:
    return soap.text_of(item, *path)


def _told(item: ET.Element, name: str) -> str:
    return web.plain(soap.text_of(item, name), MAX_NAME)


def _is_plausible(said: str, ours: str) -> bool:
    """Whether a host named by the camera may be the camera itself, seen from its own side."""
    if said == ours:
        return True
    try:
        inner = ipaddress.ip_address(said)
    except ValueError:
        return False
    return inner.is_private and not inner.is_link_local and not inner.is_loopback
