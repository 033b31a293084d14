"""The session description (RFC 8866) of a simulated camera, and bad ones."""

import base64

from firmware_sim.playout import Recording
from firmware_sim.rtp import AUDIO_CLOCK_HZ, AUDIO_PAYLOAD_TYPE, CLOCK_HZ, PAYLOAD_TYPE

_HUGE_PX, _MACROBLOCK_PX = 16_384, 16


def describe(recording: Recording, *, has_audio: bool, how: str = "good") -> bytes:
    """Give the description of a stream.

    Args:
        recording: what is played.
        has_audio: a second track with G.711.
        how: good; no_video (audio alone); empty; huge_sps and zero_sps (16384x16384 and 0x0 in
            its parameter sets); no_sets (they come in band only).
    """
    if how == "empty":
        return b""
    lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=simulated camera", "t=0 0", "a=control:*"]
    if how != "no_video":
        lines += _video(recording, how)
    if has_audio or how == "no_video":
        lines += [
            f"m=audio 0 RTP/AVP {AUDIO_PAYLOAD_TYPE}",
            f"a=rtpmap:{AUDIO_PAYLOAD_TYPE} PCMA/{AUDIO_CLOCK_HZ}",
            "a=control:trackID=1",
        ]
    return "\r\n".join([*lines, ""]).encode()


def sets_of(recording: Recording, how: str) -> tuple[bytes, ...]:
    """Give the parameter sets that go into the description and before key frames."""
    sets = recording.parameter_sets
    if how == "huge_sps":
        return (sps(_HUGE_PX, _HUGE_PX), *sets[1:])
    if how == "zero_sps":
        return (sps(0, 0), *sets[1:])
    return sets


def sps(width_px: int, height_px: int) -> bytes:
    """Give an H.264 sequence parameter set, baseline, of any size (ITU-T H.264, 7.3.2.1.1)."""
    bits = "".join(
        (
            *(_bits(66, 8), _bits(0, 8), _bits(51, 8)),  # profile, constraints, level
            *(_ue(0), _ue(0), _ue(2)),  # id, log2_max_frame_num, pic_order_cnt_type
            *(_ue(1), "0"),  # reference frames, gaps
            *(_ue(max(0, width_px // _MACROBLOCK_PX - 1)),),
            *(_ue(max(0, height_px // _MACROBLOCK_PX - 1)),),
            *("1", "1"),  # frame_mbs_only, direct_8x8
            *_crop(width_px, height_px),
            "0",  # no VUI
            "1",  # stop bit
        )
    )
    bits += "0" * (-len(bits) % 8)
    payload = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return b"\x67" + payload


def _crop(width_px: int, height_px: int) -> tuple[str, ...]:
    """A size of zero is one macroblock with all of it cropped away, in units of two pixels."""
    if width_px and height_px:
        return ("0",)
    return ("1", _ue(0), _ue(_MACROBLOCK_PX // 2), _ue(0), _ue(_MACROBLOCK_PX // 2))


def _video(recording: Recording, how: str) -> list[str]:
    sets = sets_of(recording, how)
    coded = [base64.b64encode(item).decode() for item in sets]
    head = [f"m=video 0 RTP/AVP {PAYLOAD_TYPE}"]
    tail = [f"a=framerate:{recording.frames_per_s:g}", "a=control:trackID=0"]
    if recording.codec == "hevc":
        names = ("sprop-vps", "sprop-sps", "sprop-pps")
        given = ";".join(f"{name}={one}" for name, one in zip(names, coded, strict=False))
        fmtp = [] if how == "no_sets" else [f"a=fmtp:{PAYLOAD_TYPE} {given}"]
        return [*head, f"a=rtpmap:{PAYLOAD_TYPE} H265/{CLOCK_HZ}", *fmtp, *tail]
    profile = sets[0][1:4].hex()
    given = f"packetization-mode=1;profile-level-id={profile}"
    if how != "no_sets":
        given += f";sprop-parameter-sets={','.join(coded)}"
    fmtp = [f"a=fmtp:{PAYLOAD_TYPE} {given}"]
    return [*head, f"a=rtpmap:{PAYLOAD_TYPE} H264/{CLOCK_HZ}", *fmtp, *tail]


def _bits(value: int, count: int) -> str:
    return format(value, f"0{count}b")


def _ue(value: int) -> str:
    """Code an unsigned Exp-Golomb number."""
    coded = format(value + 1, "b")
    return "0" * (len(coded) - 1) + coded
