"""RTP and RTCP (RFC 3550) for H.264 (RFC 6184), H.265 (RFC 7798) and G.711: packets and reports."""

import struct
from collections.abc import Iterator, Sequence

CLOCK_HZ = 90_000
PAYLOAD_TYPE = 96
AUDIO_PAYLOAD_TYPE = 8  # PCMA
AUDIO_CLOCK_HZ = 8000
MAX_PAYLOAD_BYTES = 1400
NTP_EPOCH_S = 2_208_988_800  # 1900 to 1970
_FU_A, _STAP_A = 28, 24
_HEVC_FU = 49
_SENDER_REPORT = 200
_PADDING_BYTES = 8


class Packetizer:
    """Numbers the packets of one RTP stream.

    Args:
        ssrc: identifies the stream.
        first_seq: number of its first packet.
        payload_type: what its packets are said to hold.
    """

    def __init__(self, ssrc: int, first_seq: int, payload_type: int = PAYLOAD_TYPE) -> None:
        self.ssrc = ssrc
        self.seq = first_seq & 0xFFFF
        self.packets = 0
        self.payload_bytes = 0
        self._payload_type = payload_type

    def access_unit(
        self,
        nals: Sequence[bytes],
        timestamp: int,
        codec: str = "h264",
        *,
        is_aggregating: bool = False,
        has_padding: bool = False,
    ) -> Iterator[bytes]:
        """Give the RTP packets of one picture; the last one carries the marker."""
        payloads = [payload for nal in nals for payload in _payloads(nal, codec)]
        if is_aggregating and codec == "h264":
            payloads = list(_aggregated(payloads))
        for number, payload in enumerate(payloads):
            has_marker = number == len(payloads) - 1
            yield self.packet(payload, timestamp, has_marker=has_marker, has_padding=has_padding)

    def packet(
        self, payload: bytes, timestamp: int, *, has_marker: bool, has_padding: bool = False
    ) -> bytes:
        """Give one RTP packet."""
        header = struct.pack(
            ">BBHII",
            0x80 | (0x20 if has_padding else 0),
            (0x80 if has_marker else 0) | self._payload_type,
            self.seq,
            timestamp & 0xFFFFFFFF,
            self.ssrc,
        )
        self.seq = (self.seq + 1) & 0xFFFF
        self.packets += 1
        self.payload_bytes += len(payload)
        padding = bytes(_PADDING_BYTES - 1) + bytes([_PADDING_BYTES]) if has_padding else b""
        return header + payload + padding

    def sender_report(self, utc_s: float, timestamp: int) -> bytes:
        """Give an RTCP sender report that ties the camera's wall clock to RTP time."""
        seconds = int(utc_s)
        fraction = int((utc_s - seconds) * (1 << 32))
        return struct.pack(
            ">BBHIIIIII",
            0x80,
            _SENDER_REPORT,
            6,
            self.ssrc,
            (seconds + NTP_EPOCH_S) & 0xFFFFFFFF,
            fraction,
            timestamp & 0xFFFFFFFF,
            self.packets & 0xFFFFFFFF,
            self.payload_bytes & 0xFFFFFFFF,
        )


def interleaved(channel: int, packet: bytes, *, wrong_by: int = 0) -> bytes:
    """Wrap a packet for RTSP's TCP connection; `wrong_by` makes its length a lie."""
    length = max(0, min(0xFFFF, len(packet) + wrong_by))
    return struct.pack(">cBH", b"$", channel, length) + packet


def _payloads(nal: bytes, codec: str) -> list[bytes]:
    if len(nal) <= MAX_PAYLOAD_BYTES:
        return [nal]
    return list(_hevc_fragments(nal) if codec == "hevc" else _fragments(nal))


def _aggregated(payloads: Sequence[bytes]) -> Iterator[bytes]:
    """Put neighbouring small NAL units into one packet (STAP-A)."""
    waiting: list[bytes] = []
    for payload in payloads:
        is_whole = payload[0] & 0x1F != _FU_A
        size = 1 + sum(2 + len(item) for item in (*waiting, payload))
        if waiting and (not is_whole or size > MAX_PAYLOAD_BYTES):
            yield _together(waiting)
            waiting = []
        if is_whole:
            waiting.append(payload)
        else:
            yield payload
    if waiting:
        yield _together(waiting)


def _together(nals: Sequence[bytes]) -> bytes:
    if len(nals) == 1:
        return nals[0]
    importance = max(nal[0] & 0x60 for nal in nals)
    return bytes((importance | _STAP_A,)) + b"".join(
        struct.pack(">H", len(nal)) + nal for nal in nals
    )


def _fragments(nal: bytes) -> Iterator[bytes]:
    indicator = (nal[0] & 0xE0) | _FU_A
    kind = nal[0] & 0x1F
    body = nal[1:]
    step = MAX_PAYLOAD_BYTES - 2
    for start in range(0, len(body), step):
        flags = (0x80 if start == 0 else 0) | (0x40 if start + step >= len(body) else 0)
        yield bytes((indicator, flags | kind)) + body[start : start + step]


def _hevc_fragments(nal: bytes) -> Iterator[bytes]:
    head = bytes(((nal[0] & 0x81) | (_HEVC_FU << 1), nal[1]))
    kind = (nal[0] >> 1) & 0x3F
    body = nal[2:]
    step = MAX_PAYLOAD_BYTES - 3
    for start in range(0, len(body), step):
        flags = (0x80 if start == 0 else 0) | (0x40 if start + step >= len(body) else 0)
        yield head + bytes((flags | kind,)) + body[start : start + step]
