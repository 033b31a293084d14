"""What a playing client of the simulated camera is sent, with all that can be wrong with it."""

import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from firmware_sim.faults import Faults
from firmware_sim.playout import AccessUnit, Playout
from firmware_sim.rtp import (
    AUDIO_CLOCK_HZ,
    AUDIO_PAYLOAD_TYPE,
    CLOCK_HZ,
    Packetizer,
    interleaved,
)
from firmware_sim.sdp import sets_of

REPORT_EVERY_S = 2.0
VIDEO, AUDIO = 0, 1
_AUDIO_SAMPLES = 160  # of one packet, 20 ms
_TONE = bytes((0x34, 0x21, 0x21, 0x34, 0xB4, 0xA1, 0xA1, 0xB4))  # 1 kHz in A-law (ITU-T G.711)
_RTP_HEADER_BYTES = 12
_RUBBISH = b"\x24\x07\xff\xffnot RTP at all" * 3

Send = Callable[[int, bytes], None]
"""Sends a packet on a channel: 2 n for RTP of track n, 2 n + 1 for its RTCP."""


class Sender:
    """Sends one stream to one client.

    Args:
        playout: what is played.
        faults: what is wrong just now.
        send: the way to the client.
    """

    def __init__(self, playout: Playout, faults: Faults, send: Send) -> None:
        self.playout = playout
        self.packets = 0
        self.tracks: set[int] = set()
        self._faults = faults
        self._send = send
        self._video = Packetizer(secrets.randbits(32), secrets.randbits(16))
        self._audio = Packetizer(secrets.randbits(32), secrets.randbits(16), AUDIO_PAYLOAD_TYPE)
        self._origin = secrets.randbits(31)
        self._report_at_s = 0.0
        self._audio_at: int | None = None
        self._picture: AccessUnit | None = None  # that a frozen camera shows

    def rtp_info(self, url: str) -> str:
        """Give the RTP-Info header of PLAY."""
        cached = self.playout.gop
        first_s = cached[0].time_s if cached else self.playout.now_ticks() / CLOCK_HZ
        return f"url={url}/trackID=0;seq={self._video.seq};rtptime={self._ticks(first_s)}"

    def start(self) -> None:
        """Send what there is since the last key frame at once, as many cameras do, then go on."""
        for unit in list(self.playout.gop):
            self.unit(unit)
        self.playout.listeners.add(self.unit)

    def stop(self) -> None:
        """Send no more."""
        self.playout.listeners.discard(self.unit)

    @property
    def is_playing(self) -> bool:
        """Whether it has been started and not stopped."""
        return self.unit in self.playout.listeners

    def unit(self, unit: AccessUnit) -> None:
        """Send one picture, or what the faults leave of it."""
        faults = self._faults
        if faults.is_stalled or VIDEO not in self.tracks:
            return
        if unit.is_key and not faults.has_key_frames:
            return
        if not unit.is_key and faults.hits(faults.frames_missing):
            return
        self._report()
        unit = self._frozen(unit)
        nals = unit.nals
        if unit.is_key:
            nals = (*sets_of(self.playout.recording, faults.sdp), *nals)
        for packet in self._video.access_unit(
            nals,
            self._ticks(unit.time_s),
            self.playout.recording.codec,
            is_aggregating=faults.is_aggregating,
            has_padding=faults.has_padding,
        ):
            self._damaged(VIDEO, packet)
        if AUDIO in self.tracks:
            self._sound()

    def _frozen(self, unit: AccessUnit) -> AccessUnit:
        if not self._faults.is_frozen:
            self._picture = None
            return unit
        if self._picture is None:
            cached = self.playout.gop
            self._picture = cached[0] if cached else unit
        return replace(self._picture, time_s=unit.time_s, due_s=unit.due_s)

    def _damaged(self, track: int, packet: bytes) -> None:
        faults = self._faults
        if faults.hits(faults.loss):
            return
        if faults.hits(faults.bit_errors) and len(packet) > _RTP_HEADER_BYTES + 3:
            at = faults.dice.randrange(_RTP_HEADER_BYTES + 3, len(packet))
            flipped = packet[at] ^ (1 << faults.dice.randrange(8))
            packet = packet[:at] + bytes((flipped,)) + packet[at + 1 :]
        if faults.hits(faults.truncated) and len(packet) > _RTP_HEADER_BYTES + 2:
            packet = packet[: faults.dice.randrange(_RTP_HEADER_BYTES + 1, len(packet))]
        self._send(2 * track, packet)
        self.packets += 1

    def _sound(self) -> None:
        now = round(self.playout.now_ticks() * AUDIO_CLOCK_HZ / CLOCK_HZ)
        at = now if self._audio_at is None else self._audio_at
        while at + _AUDIO_SAMPLES <= now:
            payload = _TONE * (_AUDIO_SAMPLES // len(_TONE))
            packet = self._audio.packet(payload, (self._origin + at) & 0xFFFFFFFF, has_marker=False)
            self._damaged(AUDIO, packet)
            at += _AUDIO_SAMPLES
        self._audio_at = at

    def _report(self) -> None:
        now_s = time.monotonic()
        if now_s < self._report_at_s or not self._faults.has_reports:
            return
        self._report_at_s = now_s + REPORT_EVERY_S
        ticks = self._ticks(self.playout.now_ticks() / CLOCK_HZ)
        utc_s = time.time() + self._faults.clock_offset_s
        self._send(2 * VIDEO + 1, self._video.sender_report(utc_s, ticks))

    def _ticks(self, time_s: float) -> int:
        shifted_s = time_s + self._faults.jump_s
        return (self._origin + round(shifted_s * CLOCK_HZ)) & 0xFFFFFFFF


class UdpPorts:
    """The camera's end of a stream over UDP: a socket for RTP and one for RTCP a track."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._sockets: dict[int, tuple[socket.socket, tuple[str, int]]] = {}

    def open(self, track: int, client: str, ports: tuple[int, int]) -> tuple[int, int]:
        """Open both sockets of a track towards the client's ports; gives our ports."""
        ours = []
        for offset, port in enumerate(ports):
            link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            link.setblocking(False)
            link.bind((self._host, 0))
            self._sockets[2 * track + offset] = (link, (client, port))
            ours.append(int(link.getsockname()[1]))
        return ours[0], ours[1]

    def send(self, channel: int, packet: bytes) -> None:
        """Send, or lose the packet as a full network would."""
        if channel in self._sockets:
            link, target = self._sockets[channel]
            try:
                link.sendto(packet, target)
            except OSError:
                return

    def close(self) -> None:
        """Close every socket."""
        for link, _ in self._sockets.values():
            link.close()
        self._sockets.clear()


def framed(channel: int, packet: bytes, faults: Faults) -> bytes:
    """Give a packet as RTSP's TCP connection carries it, damaged as the faults say."""
    if faults.answer == "rubbish_frames" and faults.hits(0.2):
        return _RUBBISH + interleaved(channel, packet)
    wrong_by = faults.dice.choice((-7, 7, 20_000)) if faults.hits(faults.lying_lengths) else 0
    return interleaved(channel, packet, wrong_by=wrong_by)
