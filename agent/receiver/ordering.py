"""One command of the centre by hand: signed with the receiver's key, sent, its answer awaited.

The broker keeps a command for a device that is away; such a one answers later, to the receiver.
"""

from collections.abc import Mapping
from typing import Any

from agent.core import wire
from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.errors import MalformedMessage, UplinkDown
from agent.core.wire import Json, Topics
from agent.delivery.session import Acked, Lost, Received, Session
from agent.evidence.keys import DeviceKey
from agent.evidence.receipt import sign_command

POLL_S = 0.2
FAILED = 0x80
WORDS = ("hold", "release")


def signed(word: str, args: Json, device: str, key: DeviceKey, clock: Clock) -> Json:
    """Give a signed command; MalformedMessage if its args are not in order."""
    if word not in WORDS:
        raise MalformedMessage(f"word {word[:32]!r}; allowed: {', '.join(WORDS)}")
    fields = {
        "id": clock.new_id(),
        "device": device,
        "word": word,
        "args": wire.check(word, args),
        "issued_utc_ms": clock.utc_ns() // NS_PER_MS,
        "receiver": "by-hand",
    }
    return wire.check("command", sign_command(fields, key))


def send(
    session: Session, topics: Topics, command: Mapping[str, Any], clock: Clock, wait_s: float
) -> Json | None:
    """Send a command and give the body of the device's answer, None if none came in time.

    Raises:
        UplinkDown: the broker is out of reach or does not take it.
    """
    status = topics.up(f"command/{command['id']}/status")
    deadline_ns = clock.mono_ns() + round(wait_s * NS_PER_S)
    session.connect()
    try:
        session.subscribe([status])
        session.publish(topics.command(command["id"]), wire.encode(command))
        while clock.mono_ns() < deadline_ns:
            for event in session.poll(POLL_S):
                if (answer := _answer(event, status)) is not None:
                    return answer
    finally:
        session.close()
    return None


def _answer(event: object, status: str) -> Json | None:
    if isinstance(event, Lost):
        raise UplinkDown(event.reason)
    if isinstance(event, Acked) and event.code >= FAILED:
        raise UplinkDown(f"the broker does not take the command: 0x{event.code:02x}")
    if not isinstance(event, Received) or event.topic != status:
        return None
    body: Json = wire.decode("envelope", event.payload)["body"]
    return wire.check("command_status", body)
