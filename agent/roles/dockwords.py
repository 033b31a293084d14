"""Holds at a dock as words: of the centre's signed commands, and of people at the dock."""

from collections.abc import Mapping

from agent.core import wire
from agent.core.wire import Json
from agent.device import commands, requests
from agent.device.requests import Request
from agent.docking.holds import BY_CENTRE, Holds


def centre_words(holds: Holds) -> Mapping[str, commands.Word]:
    """Give the words of the centre; a hold gets the id of the command that placed it."""

    def place(command_id: str, args: Json) -> commands.Answer:
        return commands.Answer(f"hold {holds.place(args, _by(command_id), command_id)}")

    def release(command_id: str, args: Json) -> commands.Answer:
        wanted = wire.check("release", args)
        holds.release(wanted["hold"], wanted["reason"], wanted["by"], _by(command_id))
        return commands.Answer(f"hold {wanted['hold']} let go")

    return {"hold": place, "release": release}


def box_words(holds: Holds) -> Mapping[str, requests.Do]:
    """Give the words of people at the dock."""

    def place(request: Request) -> Json:
        return {"hold": holds.place({**request.args, "by": request.by}, _via(request))}

    def release(request: Request) -> Json:
        name, reason = (str(request.args.get(key, "")) for key in ("hold", "reason"))
        holds.release(name, reason, request.by, _via(request))
        return {"hold": name}

    return {"hold": place, "release": release}


def _by(command_id: str) -> str:
    return f"{BY_CENTRE} {command_id}"


def _via(request: Request) -> str:
    return "" if request.uid < 0 else f"user {request.uid}"
