"""The centre's next key, signed by the one before: a chain that begins at the configured key.

A step is a DSSE envelope around site, number, old key, new key and a moment before which the new
key does not count. A chain is read whole or not at all, and only ever grows.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from agent.core import wire
from agent.core.errors import IntegrityError
from agent.evidence.keys import DeviceKey, PublicKey, envelope, open_envelope

PAYLOAD_TYPE = "application/vnd.outpost.rotation+json"
MOST_STEPS = 16


@dataclass(frozen=True, slots=True)
class Step:
    """One change of key."""

    number: int
    old: PublicKey
    new: PublicKey
    not_before_utc_ms: int
    document: wire.Json  # the envelope


@dataclass(frozen=True, slots=True)
class Chain:
    """The keys of a centre, the first one given by configuration."""

    first: PublicKey
    steps: tuple[Step, ...] = ()

    @classmethod
    def read(cls, first: PublicKey, documents: Sequence[wire.Json], site: str) -> Self:
        """Check a chain from its first step, or from where `first` was the old key.

        Raises:
            IntegrityError: naming the first thing wrong; also if it does not begin at `first`.
        """
        steps: list[Step] = []
        key: PublicKey | None = None
        for document in documents:
            claimed = public_key(claims(document)["old_key"]) if key is None else key
            steps.append(_opened(document, claimed, site, steps))
            key = steps[-1].new
        begins = [index for index, step in enumerate(steps) if step.old == first]
        if steps and not begins:
            raise IntegrityError(
                f"rotation: begins at {steps[0].old.keyid}; configured: {first.keyid}"
            )
        return cls(first, tuple(steps[begins[0] :]) if begins else ())

    @property
    def keys(self) -> tuple[PublicKey, ...]:
        """All keys, the newest last."""
        return (self.first, *(step.new for step in self.steps))

    def grown_to(self, newer: "Chain") -> bool:
        """Whether another chain goes on from this one.

        Raises:
            IntegrityError: it is an older one, or leaves this one.
        """
        mine, theirs = self.keys, newer.keys
        if theirs[: len(mine)] != mine:
            is_older = mine[: len(theirs)] == theirs
            said = "an older chain" if is_older else "another chain than the one that is pinned"
            raise IntegrityError(
                f"rotation: {said}: to {theirs[-1].keyid}; pinned: {mine[-1].keyid}"
            )
        return len(theirs) > len(mine)


def sign(
    old: DeviceKey, new: PublicKey, site: str, number: int, not_before_utc_ms: int
) -> wire.Json:
    """Make one step; `number` is 1 for a centre's first."""
    payload = {
        "sv": wire.SCHEMA_VERSION,
        "site": site,
        "number": number,
        "old_key": base64.b64encode(old.public.raw).decode(),
        "new_key": base64.b64encode(new.raw).decode(),
        "not_before_utc_ms": not_before_utc_ms,
    }
    return envelope(old, PAYLOAD_TYPE, wire.canonical(wire.check("rotation", payload)))


def claims(document: wire.Json) -> wire.Json:
    """Give what a step says, whoever has signed it.

    Raises:
        IntegrityError: it is no step.
    """
    try:
        return wire.decode("rotation", base64.b64decode(document["payload"]))
    except ValueError as error:
        raise IntegrityError(f"rotation: payload: {error}") from error


def public_key(text: str) -> PublicKey:
    """Read a key as a step spells it; IntegrityError if it is none."""
    try:
        return PublicKey(base64.b64decode(text, validate=True))
    except ValueError as error:
        raise IntegrityError(f"rotation: key: {error}") from error


def _opened(document: wire.Json, key: PublicKey, site: str, before: Sequence[Step]) -> Step:
    payload = wire.decode("rotation", open_envelope(document, PAYLOAD_TYPE, key))
    step = Step(
        payload["number"],
        public_key(payload["old_key"]),
        public_key(payload["new_key"]),
        payload["not_before_utc_ms"],
        document,
    )
    if payload["site"] != site:
        raise IntegrityError(f"rotation: of site {payload['site']!r}; wanted: {site!r}")
    if step.old != key:
        raise IntegrityError(
            f"rotation {step.number}: from {step.old.keyid}; signed by {key.keyid}"
        )
    if before and step.number != before[-1].number + 1:
        wanted = before[-1].number + 1
        raise IntegrityError(f"rotation: number {step.number}; wanted: {wanted}")
    known = {before[0].old, *(item.new for item in before)} if before else {step.old}
    if step.new in known:
        raise IntegrityError(f"rotation {step.number}: back to {step.new.keyid}, a key of before")
    return step
