"""RTP and RTCP for H.264 (RFC 3550, RFC 6184): access units into packets, sender reports."""

import struct
from collections.abc import Iterator, Sequence

CLOCK_HZ = 90_000
PAYLOAD_TYPE = 96
MAX_PAYLOAD_BYTES = 1400
NTP_EPOCH_S = 2_208_988_800  # 1900 to 1970
_FU_A = 28
_SENDER_REPORT = 200


class Packetizer:
    """Numbers the packets of one RTP stream."""

    def __init__(self, ssrc: int, first_seq: int) -> None:
        self.ssrc = ssrc
        self.seq = first_seq & 0xFFFF
        self.packets = 0
        self.payload_bytes = 0

    def access_unit(self, nals: Sequence[bytes], timestamp: int) -> Iterator[bytes]:
        """Give the RTP packets of one picture; the last one carries the marker."""
        for index, nal in enumerate(nals):
            is_last = index == len(nals) - 1
            payloads = [nal] if len(nal) <= MAX_PAYLOAD_BYTES else list(_fragments(nal))
            for number, payload in enumerate(payloads):
                has_marker = is_last and number == len(payloads) - 1
                yield self._packet(payload, timestamp, has_marker=has_marker)

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

    def _packet(self, payload: bytes, timestamp: int, *, has_marker: bool) -> bytes:
        header = struct.pack(
            ">BBHII",
            0x80,
            (0x80 if has_marker else 0) | PAYLOAD_TYPE,
            self.seq,
            timestamp & 0xFFFFFFFF,
            self.ssrc,
        )
        self.seq = (self.seq + 1) & 0xFFFF
        self.packets += 1
        self.payload_bytes += len(payload)
        return header + payload


def interleaved(channel: int, packet: bytes) -> bytes:
    """Wrap a packet for RTSP's TCP connection."""
    return struct.pack(">cBH", b"$", channel, len(packet)) + packet


def _fragments(nal: bytes) -> Iterator[bytes]:
    indicator = (nal[0] & 0xE0) | _FU_A
    kind = nal[0] & 0x1F
    body = nal[1:]
    step = MAX_PAYLOAD_BYTES - 2
    for start in range(0, len(body), step):
        flags = (0x80 if start == 0 else 0) | (0x40 if start + step >= len(body) else 0)
        yield bytes((indicator, flags | kind)) + body[start : start + step]
