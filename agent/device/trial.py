"""Tries a camera's stream for some seconds: what it really sends, and what to do about it.

A camera's own pages say what was asked of it; only its packets say what it does.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Final, Protocol

from agent.core.clock import NS_PER_S, Clock
from agent.core.errors import AgentError, AuthRefused, SourceLost, Unsupported
from agent.core.model import Packet, StreamInfo

LOOK_S: Final = 4.0
MOST_LOOKS: Final = 3  # times as long, until a second key frame comes
MAX_KEY_EVERY_S: Final = 4.0
MAX_CLOCK_OFFSET_S: Final = 5.0
MAX_SUB_WIDTH_PX: Final = 1280
MIN_RATE_PER_S: Final = 5.0
US_PER_S: Final = 1_000_000

_KEYS: Final = "set a key frame (I-frame) every 1 to 2 s at the camera, and its smart codec off"
_CURES: Final[Sequence[tuple[type[AgentError], str, str]]] = (
    (
        AuthRefused,
        "no password",
        "write the camera's password into that file, one line, and let this user read it",
    ),
    (AuthRefused, "none is given", "give --user NAME and --password-file FILE"),
    (
        AuthRefused,
        "",
        (
            "check the user and the password file; do not try many times, cameras lock the account:"
            " after a few failures wait ten minutes"
        ),
    ),
    (Unsupported, "codec", "choose H.264 for this stream at the camera"),
    (Unsupported, "no profile", "take a profile that the camera has, or make one there"),
    (
        Unsupported,
        "another host",
        "set the camera's own address right, or give the stream itself: --url rtsp://…",
    ),
    (Unsupported, "stream's url", "give the stream itself: --url rtsp://…"),
    (Unsupported, "", "choose H.264, and neither multicast nor encryption, at the camera"),
    (
        SourceLost,
        "no such path",
        (
            "the camera is there, this stream is not: its manual has the path, or onvif://ADDRESS"
            " finds it"
        ),
    ),
    (SourceLost, "no such device", "plug it in; `ls -l /dev/v4l/by-id` shows its name"),
    (SourceLost, "permission denied", "`sudo usermod -aG video USER`, then log in again"),
    (SourceLost, "another program", "end what uses it: `systemctl stop outpost`"),
    (SourceLost, "it gives no", "write the format, size and rate that it has into main"),
    (SourceLost, "does not send by", 'write transport = "auto" into the stream\'s table'),
    (SourceLost, "a redirect", "switch plain HTTP on for ONVIF at the camera, or give its port"),
    (
        SourceLost,
        "refused",
        (
            "something is there, but not on this port: check the port, switch RTSP (or ONVIF) on at"
            " the camera"
        ),
    ),
    (SourceLost, "not xml", "this is no ONVIF port: look for it in the camera's network settings"),
    (SourceLost, "no packet", "it answers and sends nothing: restart the camera"),
    (
        SourceLost,
        "",
        "check power, cable and address (`ping` it); box and camera must share a network",
    ),
)


class Source(Protocol):
    """What the drivers give."""

    def open(self) -> StreamInfo:
        """Connect; SourceLost, AuthRefused or Unsupported."""
        ...

    def packets(self) -> Iterator[Packet]:
        """Give packets in decoding order, from a key frame on."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


@dataclass(frozen=True, slots=True)
class Trial:
    """What a stream did; None where it sent too little to tell, or does not say."""

    codec: str | None = None
    size: str | None = None  # 1920x1080
    rate_per_s: float | None = None
    key_every_s: float | None = None
    kbit_per_s: float | None = None
    clock_offset_s: float | None = None  # the camera's clock minus ours
    sound: str | None = None  # codec, or none
    transport: str | None = None
    fault: str = ""  # why it cannot be recorded
    cure: str = ""
    advice: tuple[str, ...] = ()  # how it would be better
    is_refused: bool = False  # the login is turned down: each more try may lock the account

    @property
    def is_good(self) -> bool:
        """Whether it can be recorded."""
        return not self.fault


def attempt(source: Source, clock: Clock, look_s: float = LOOK_S, *, is_sub: bool = False) -> Trial:
    """Open a stream, look at it for some seconds, let go.

    Args:
        source: of any driver.
        clock: for how long it has been.
        look_s: how long to look; up to `MOST_LOOKS` times that, until a second key frame comes.
        is_sub: whether it is the small stream, which is decoded.
    """
    try:
        with closing(source):
            info = source.open()
            packets = list(_taken(source, clock, look_s))
    except AgentError as error:
        is_refused = isinstance(error, AuthRefused)
        return Trial(fault=str(error), cure=cure(error), is_refused=is_refused)
    return _judged(info, packets, is_sub=is_sub)


def cure(error: AgentError) -> str:
    """Give what a person should do about a camera's error."""
    text = str(error).lower()
    known = (does for kind, part, does in _CURES if isinstance(error, kind) and part in text)
    return next(known, "")


def _taken(source: Source, clock: Clock, look_s: float) -> Iterator[Packet]:
    begun_ns, keys = clock.mono_ns(), 0
    for packet in source.packets():
        yield packet
        keys += packet.is_key
        passed_s = (clock.mono_ns() - begun_ns) / NS_PER_S
        if passed_s >= look_s and (keys > 1 or passed_s >= MOST_LOOKS * look_s):
            return


def _judged(info: StreamInfo, packets: Sequence[Packet], *, is_sub: bool) -> Trial:
    times_us = sorted(packet.pts_us for packet in packets)
    span_s = (times_us[-1] - times_us[0]) / US_PER_S if packets else 0.0
    keys_us = [packet.pts_us for packet in packets if packet.is_key]
    offsets_ns = [
        packet.camera_utc_ns - packet.utc_ns
        for packet in packets
        if packet.camera_utc_ns is not None
    ]
    bits = 8 * sum(len(packet.payload) for packet in packets[:-1])
    found = Trial(
        codec=info.codec,
        size=f"{info.width_px}x{info.height_px}",
        rate_per_s=round((len(packets) - 1) / span_s, 1) if span_s else None,
        key_every_s=_longest_s(keys_us),
        kbit_per_s=round(bits / 1000 / span_s) if span_s else None,
        clock_offset_s=round(median(offsets_ns) / NS_PER_S, 1) if offsets_ns else None,
        sound=info.sound or "none",
        transport=info.transport or None,
    )
    if found.key_every_s is None:
        fault = f"no second key frame in {span_s:.0f} s; allowed: one every {MAX_KEY_EVERY_S:g} s"
        return replace(found, fault=fault, cure=_KEYS)
    return replace(found, advice=tuple(_advice(found, info, is_sub=is_sub)))


def _advice(found: Trial, info: StreamInfo, *, is_sub: bool) -> Iterator[str]:
    if found.key_every_s is not None and found.key_every_s > MAX_KEY_EVERY_S:
        yield f"key frames only every {found.key_every_s:g} s: {_KEYS}"
    offset_s = 0.0 if is_sub else found.clock_offset_s or 0.0  # it is one clock: told once
    if abs(offset_s) > MAX_CLOCK_OFFSET_S:
        yield f"its clock is {offset_s:+g} s off: set the time (NTP) at the camera"
    if found.rate_per_s is not None and found.rate_per_s < MIN_RATE_PER_S:
        yield f"{found.rate_per_s:g} pictures a second: set 10 to 15 at the camera"
    if info.codec == "hevc" and not is_sub:
        yield "H.265 is recorded, but most browsers do not play it: H.264 plays everywhere"
    if is_sub and info.width_px > MAX_SUB_WIDTH_PX:
        yield f"the small stream is large: set it to {MAX_SUB_WIDTH_PX // 2} pixels or less"


def _longest_s(keys_us: Sequence[int]) -> float | None:
    waits_us = [later - sooner for sooner, later in pairwise(keys_us)]
    return round(max(waits_us) / US_PER_S, 1) if waits_us else None
