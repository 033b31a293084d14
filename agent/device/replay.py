"""The command `replay`: numbers that the centre lacks are sent again, or accounted for and signed.

A number that was given and is neither in the outbox nor noted as removed was taken: by the broker,
or, for what needs a receipt, by the centre.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence

from agent.core import wire
from agent.core.clock import NS_PER_MS, Clock
from agent.core.errors import MalformedMessage
from agent.core.store import Store
from agent.core.wire import Json
from agent.delivery import removals
from agent.delivery.removals import Span
from agent.device.commands import Answer
from agent.evidence import gaprecord
from agent.evidence.keys import DeviceKey

WORD = "replay"
MOST_NUMBERS = 10_000  # answered for at once
MOST_SPANS = 200  # by the schema of the record


class Replay:
    """Answers for one box."""

    def __init__(
        self,
        store: Store,
        device: str,
        key: DeviceKey,
        clock: Clock,
        resend: Callable[[Sequence[str]], None],
    ) -> None:
        self._store = store
        self._device = device
        self._key = key
        self._clock = clock
        self._resend = resend  # message ids that need not wait for their receipt any longer

    def __call__(self, command_id: str, args: Json) -> Answer:
        """Answer one command.

        Raises:
            MalformedMessage: the args are not in order.
        """
        wire.check(WORD, args)
        if args["to"] < args["from"]:
            raise MalformedMessage(f"replay: from {args['from']} to {args['to']}; allowed: upwards")
        last = min(args["to"], args["from"] + MOST_NUMBERS - 1)
        asked = Span(args["boot"], args["lane"], args["from"], last)
        with self._store.reading() as connection:
            waiting, aside = _here(connection, asked)
            removed = removals.within(connection, asked)
            given = _given(connection, asked)
        reasons: dict[str, set[int]] = defaultdict(set)
        for number in range(asked.first, asked.last + 1):
            if number not in waiting:
                reasons[_reason(number, aside, removed, given)].add(number)
        spans, last = _bounded(reasons, asked.last)
        self._resend([found for number, found in waiting.items() if number <= last])
        fields = {
            "device": self._device,
            "command": command_id,
            "boot": asked.boot,
            "lane": asked.lane,
            "from": asked.first,
            "to": last,
            "utc_ms": max(0, self._clock.utc_ns() // NS_PER_MS),
            "missing": spans,
            "waiting": sum(number <= last for number in waiting),
        }
        detail = f"{fields['waiting']} sent again, {len(spans)} spans will not come"
        return Answer(detail, gaprecord.sign(fields, self._key))


def _here(connection: sqlite3.Connection, asked: Span) -> tuple[dict[int, str], set[int]]:
    """Give the message ids that wait, by number, and the numbers that were set aside."""
    waiting, aside = {}, set()
    for row in connection.execute(
        "SELECT message_id, quarantine IS NOT NULL AS is_aside, payload FROM outbox"
        " WHERE lane = ? AND boot = ? ORDER BY id",
        (asked.lane, asked.boot),
    ):
        if not row["payload"].startswith(b'{"sv"'):
            continue  # for others than the centre: it has no number
        number = json.loads(row["payload"])["seq"]
        if number > asked.last:
            break
        if number >= asked.first and row["is_aside"]:
            aside.add(number)
        elif number >= asked.first:
            waiting[number] = row["message_id"]
    return waiting, aside


def _given(connection: sqlite3.Connection, asked: Span) -> int:
    """Give the last number that can have been given."""
    row = connection.execute(
        "SELECT value FROM meta WHERE key = ?", (f"seq/{asked.lane}",)
    ).fetchone()
    boot, last = (0, 0) if row is None else map(int, row["value"].split())
    if asked.boot < boot:
        return asked.last  # an earlier start: how far it counted is not known any more
    return last if asked.boot == boot else 0


def _reason(number: int, aside: set[int], removed: set[int], given: int) -> str:
    if number in aside:
        return "quarantined"
    if number in removed:
        return "evicted"
    return "taken" if number <= given else "never"


def _bounded(reasons: dict[str, set[int]], last: int) -> tuple[list[dict[str, object]], int]:
    """Give what fits into one record, and the number up to which it then speaks."""
    spans = sorted(
        (first, end, reason)
        for reason, numbers in reasons.items()
        for first, end in removals.joined(numbers)
    )
    if len(spans) > MOST_SPANS:
        last = spans[MOST_SPANS][0] - 1
        spans = spans[:MOST_SPANS]
    return [{"from": first, "to": end, "reason": reason} for first, end, reason in spans], last
