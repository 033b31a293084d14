"""Holds and pins as words: of the centre's signed commands, and of people at the box."""

from collections.abc import Callable, Mapping

from agent.core import wire
from agent.core.clock import NS_PER_MS
from agent.core.errors import MalformedMessage
from agent.core.wire import Json
from agent.device import commands, requests
from agent.device.requests import Request
from agent.vision.footage import Span
from agent.vision.hold import BY_CENTRE, Keepsakes, Word


def centre_words(keepsakes: Keepsakes) -> Mapping[str, commands.Word]:
    """Give the words of the centre; a hold gets the id of the command that placed it."""

    def place(command_id: str, args: Json) -> commands.Answer:
        wanted = wire.check("hold", args)
        word = Word(wanted["reason"], wanted["by"], f"{BY_CENTRE} {command_id}")
        return commands.Answer(f"hold {keepsakes.place(_span(wanted), word, command_id)}")

    def release(command_id: str, args: Json) -> commands.Answer:
        wanted = wire.check("release", args)
        word = Word(wanted["reason"], wanted["by"], f"{BY_CENTRE} {command_id}")
        keepsakes.release(wanted["hold"], word)
        return commands.Answer(f"hold {wanted['hold']} let go")

    return {"hold": place, "release": release}


def box_words(keepsakes: Keepsakes) -> Mapping[str, requests.Do]:
    """Give the words of people at the box."""

    def place(request: Request) -> Json:
        wanted = wire.check("hold", {**request.args, "by": request.by})
        return {"hold": keepsakes.place(_span(wanted), _word(request))}

    def named(key: str, does: Callable[[str, Word], None]) -> requests.Do:
        def do(request: Request) -> Json:
            name = request.args.get(key)
            if not isinstance(name, str):
                raise MalformedMessage(f"{key} is missing; allowed: an id")
            does(name, _word(request))
            return {key: name}

        return do

    return {
        "hold": place,
        "release": named("hold", keepsakes.release),
        "pin": named("clip", keepsakes.pin),
        "unpin": named("clip", keepsakes.unpin),
    }


def _span(wanted: Json) -> Span:
    start_ms, end_ms = wanted["from_utc_ms"], wanted["to_utc_ms"]
    return Span(wanted["camera"], start_ms * NS_PER_MS, end_ms * NS_PER_MS)


def _word(request: Request) -> Word:
    via = "" if request.uid < 0 else f"user {request.uid}"
    return Word(str(request.args.get("reason", "")), request.by, via)
