"""Commands, spoiled: what the centre did not sign does nothing, what it signed has bounds."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import wire
from agent.core.errors import MalformedMessage
from agent.core.model import Lane, Message
from agent.device.commands import MOST_BYTES, MOST_WAITING
from agent.evidence.receipt import sign_command
from tests.device.test_replay import BOX, CENTRE, TOPICS, Desk
from tests.fuzz.hostile import NAMES, RANGES, RUBBISH, VALUES, examples, is_harmless, spoiled

MOST_S = 10.0


@pytest.fixture
def desk(store, clock):
    made = Desk(store, clock)
    for number in range(20):
        made.outbox.put(Message(Lane.TELEMETRY, "sample", {"n": number}))
    return made


def fields(number, **changes):
    document = {
        "id": f"{number:032x}",
        "device": "cam-1",
        "word": "replay",
        "args": {"boot": 7, "lane": "telemetry", "from": 1, "to": 10},
        "issued_utc_ms": 5,
        "receiver": "centre-1",
    }
    return document | changes


def answers(desk):
    with desk.store.reading() as connection:
        rows = connection.execute("SELECT state FROM command ORDER BY id").fetchall()
    return [row["state"] for row in rows]


def counter():
    yield from range(1, 1 << 30)


NUMBER = counter()


@given(data=st.data())
@examples(80)
def test_a_command_with_one_thing_wrong_does_nothing(desk, data):
    good = sign_command(fields(next(NUMBER)), CENTRE)
    content = data.draw(spoiled(good) | RUBBISH)
    if is_harmless("command", content, good):
        return
    before, ignored, resent = answers(desk), desk.commands.ignored, list(desk.resent)
    desk.hear(TOPICS.command(good["id"]), content)
    assert (answers(desk), desk.resent) == (before, resent)
    assert desk.commands.ignored == ignored + 1


@given(name=st.sampled_from(NAMES) | st.just("f" * 32), key=st.sampled_from((BOX, CENTRE)))
@examples(40)
def test_a_command_counts_on_its_own_topic_and_by_the_centres_key_only(desk, name, key):
    good = sign_command(fields(next(NUMBER)), key)
    before = answers(desk)
    desk.hear(f"{TOPICS.root}/command/{name}", wire.encode(good))
    desk.hear(f"outpost/1/plaza/cam-2/command/{good['id']}", wire.encode(good))
    assert answers(desk) == before
    desk.hear(TOPICS.command(good["id"]), wire.encode(good))
    assert len(answers(desk)) == len(before) + (key is CENTRE)


WHOLE = [value for value in VALUES if isinstance(value, int) and abs(value) <= 1 << 64]
ABSURD = st.fixed_dictionaries(
    {},
    optional={
        "boot": st.sampled_from((*WHOLE, 7, 6, 8)),
        "lane": st.sampled_from((*(name for name in NAMES if len(name) < 99), "alarm", None)),
        "from": st.sampled_from((*WHOLE, 5, 20)),
        "to": st.sampled_from((*WHOLE, 5, 20, 30)),
        "surprise": st.sampled_from(RANGES),
    },
).map(lambda changes: {"boot": 7, "lane": "telemetry", "from": 1, "to": 10} | changes)


@given(args=ABSURD, word=st.sampled_from(("replay", "reboot", "../x", "", "x" * 32)))
@examples(80)
def test_absurd_args_that_the_centre_signed_are_answered_in_time(desk, args, word):
    try:
        document = sign_command(fields(next(NUMBER), args=args, word=word), CENTRE)
    except (MalformedMessage, TypeError, ValueError):
        return  # it could not be signed either
    before, begun_s = answers(desk), time.monotonic()
    desk.hear(TOPICS.command(document["id"]), wire.encode(document))
    assert time.monotonic() - begun_s < MOST_S
    assert len(answers(desk)) == len(before) + 1
    if word != "replay" or args["from"] > args["to"] or "surprise" in args:
        assert answers(desk)[-1] == "refused"
    row = desk.outbox.take(200)
    status = next(each for each in row if each.topic.endswith(f"{document['id']}/status"))
    assert status.needs_receipt
    body = wire.decode("envelope", status.payload)["body"]
    assert wire.check("command_status", body)["command"] == document["id"]
    desk.outbox.accept_receipt([status.message_id])


def test_a_command_that_comes_again_is_done_once(desk):
    document = sign_command(fields(next(NUMBER)), CENTRE)
    for _ in range(5):
        desk.hear(TOPICS.command(document["id"]), wire.encode(document))
    assert answers(desk) == ["done"]
    assert len(desk.resent) == 10


def test_a_flood_is_held_in_bounds(desk):
    document = wire.encode(sign_command(fields(next(NUMBER)), CENTRE))
    topic = TOPICS.command("f" * 32)
    for _ in range(1000):
        desk.commands.hear(topic, b"x" * (MOST_BYTES + 1))
    assert desk.commands.ignored == 1000
    for _ in range(1000):
        desk.commands.hear(topic, document)
    assert desk.commands.ignored == 2000 - MOST_WAITING
