"""What can be wrong with a simulated camera: every fault has a name, a kind of value and limits.

    {"do": "set", "loss": 0.02}            one or several at once
    {"do": "set", "loss": 0}               as it was
    {"do": "reset"}                        all as they were

Faults that need chance draw it from one seeded source, so that a run can be repeated.
"""

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

MAX_S = 86_400.0
MAX_CLOCK_OFFSET_S = 1e9  # NTP's 32 bits of seconds hold no more than 136 years
CHOICES: Mapping[str, tuple[str, ...]] = {
    "transports": ("both", "tcp", "udp"),
    "login": ("digest", "basic"),
    "sdp": ("good", "no_video", "empty", "huge_sps", "zero_sps", "no_sets"),
    "answer": ("good", "long_length", "endless_header", "rubbish_frames", "silent"),
}
LIMITS: Mapping[str, tuple[float, float]] = {
    "loss": (0, 1),
    "bit_errors": (0, 1),
    "truncated": (0, 1),
    "frames_missing": (0, 1),
    "clock_offset_s": (-MAX_CLOCK_OFFSET_S, MAX_CLOCK_OFFSET_S),
    "jump_s": (-MAX_S, MAX_S),
    "lock_after": (0, 1000),
    "max_clients": (0, 1000),
    "lying_lengths": (0, 1),
}


@dataclass(slots=True)
class Faults:
    """What the control port can change while the camera runs."""

    transports: str = "both"  # what SETUP takes; anything else is 461
    login: str = "digest"
    lock_after: float = 0  # failed logins until the account is locked (403); 0 is never
    max_clients: float = 0  # playing at once; more is 453; 0 is no limit
    closes_at_once: bool = False
    loss: float = 0.0  # share of RTP packets
    bit_errors: float = 0.0  # share of RTP packets with a flipped bit
    truncated: float = 0.0  # share of RTP packets cut short
    frames_missing: float = 0.0  # share of pictures, never key frames
    has_padding: bool = False  # RTP padding on every packet
    is_aggregating: bool = False  # small NAL units share a packet (STAP-A)
    has_key_frames: bool = True
    is_frozen: bool = False  # one picture again and again, the clock runs
    has_reports: bool = True  # RTCP sender reports
    jump_s: float = 0.0  # of RTP time, added to all that follows
    clock_offset_s: float = 0.0  # of the camera's wall clock
    sdp: str = "good"
    answer: str = "good"
    redirect: str = ""  # where DESCRIBE sends the client
    lying_lengths: float = 0.0  # share of interleaved frames whose length is wrong
    stalled_until_s: float = 0.0
    is_refusing: bool = False
    dice: random.Random = field(default_factory=lambda: random.Random(0))

    @property
    def is_stalled(self) -> bool:
        """Whether connections stay open but nothing is sent."""
        return time.monotonic() < self.stalled_until_s

    def hits(self, share: float) -> bool:
        """Whether something that happens with this share happens now."""
        return share > 0 and self.dice.random() < share

    def change(self, values: Mapping[str, Any]) -> None:
        """Set faults by name; all of them or none.

        Raises:
            WrongValue: an unknown name, or a value that is not allowed.
        """
        checked = {name: self._checked(name, value) for name, value in values.items()}
        for name, value in checked.items():
            setattr(self, name, value)

    def reset(self) -> None:
        """Make the camera good again; the dice are not thrown back."""
        good = Faults(dice=self.dice)
        for item in fields(self):
            setattr(self, item.name, getattr(good, item.name))

    def _checked(self, name: str, value: Any) -> Any:
        if name in CHOICES:
            if value not in CHOICES[name]:
                raise WrongValue(f"{name} {_shown(value)}; allowed: {', '.join(CHOICES[name])}")
            return value
        if name in LIMITS:
            return number(value, name, *LIMITS[name])
        if name == "redirect":
            if not isinstance(value, str) or len(value) > 1000 or not value.isprintable():  # noqa: PLR2004
                raise WrongValue(f"{name} {_shown(value)}; allowed: an address")
            return value
        if isinstance(getattr(self, name, None), bool) and name in {
            one.name for one in fields(self)
        }:
            if not isinstance(value, bool):
                raise WrongValue(f"{name} {_shown(value)}; allowed: true, false")
            return value
        names = [*CHOICES, *LIMITS, "redirect"]
        names += [item.name for item in fields(self) if item.type is bool]
        raise WrongValue(f"no fault {_shown(name)}; allowed: {', '.join(sorted(names))}")


class WrongValue(ValueError):
    """An order with a value that is not allowed."""


def number(value: Any, name: str, low: float, high: float) -> float:
    """Give a number within its limits, or raise WrongValue."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise WrongValue(f"{name} {_shown(value)}; allowed: {low:g} to {high:g}")
    return float(value)


def _shown(value: Any) -> str:
    return str(value)[:40]
