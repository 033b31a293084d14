"""The command `replay`: numbers that the centre lacks are sent again, or accounted for and signed.

A number that was given and is neither in the outbox nor noted as removed was taken: by the broker,
or, for what needs a receipt, by the centre.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from agent.core import spans, wire
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
        missing, last = _bounded(reasons, asked.last)
        self._resend([found for number, found in waiting.items() if number <= last])
        fields = {
            "device": self._device,
            "command": command_id,
            "boot": asked.boot,
            "lane": asked.lane,
            "from": asked.first,
            "to": last,
            "utc_ms": max(0, self._clock.utc_ns() // NS_PER_MS),
            "missing": missing,
            "waiting": sum(number <= last for number in waiting),
        }
        detail = f"{fields['waiting']} sent again, {len(missing)} spans will not come"
        return Answer(detail, gaprecord.sign(fields, self._key))


def _here(connection: sqlite3.Connection, asked: Span) -> tuple[dict[int, str], set[int]]:
    """Give the message ids that wait, by number, and the numbers that were set aside."""
    waiting, aside = {}, set()
    for row in connection.execute(
        "SELECT message_id, quarantine IS NOT NULL AS is_aside, payload FROM outbox"
        " WHERE lane = ? AND boot = ? ORDER BY id",
        (asked.lane, asked.boot),
    ):
        number = removals.number_of(row["payload"])
        if not number:
            continue
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


def _reason(number: int, aside: set[int], removed: Mapping[int, str], given: int) -> str:
    if number in aside:
        return "quarantined"
    if number in removed:
        return removed[number]
    return "taken" if number <= given else "never"


def _bounded(reasons: dict[str, set[int]], last: int) -> tuple[list[dict[str, object]], int]:
    """Give what fits into one record, and the number up to which it then speaks."""
    found = [
        (piece, reason)
        for reason, numbers in reasons.items()
        for piece in spans.pieces(spans.joined(numbers))
    ]
    found.sort(key=lambda pair: pair[0].first)
    if len(found) > MOST_SPANS:
        last = found[MOST_SPANS][0].first - 1
        found = found[:MOST_SPANS]
    return [{**removals.worded(piece), "reason": reason} for piece, reason in found], last
