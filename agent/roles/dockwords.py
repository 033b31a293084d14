"""What may be asked of a dock: by the centre's signed commands, and by people beside it."""

from collections.abc import Mapping

from agent.core import wire
from agent.core.clock import Clock
from agent.core.store import Store
from agent.core.wire import Json
from agent.device import commands, requests
from agent.device.requests import Request
from agent.docking.footage import Custody
from agent.docking.holds import BY_CENTRE, Holds
from agent.docking.secondcopy import SecondCopy
from agent.docking.tags import Tags
from agent.roles.config import DockRole


def centre_words(holds: Holds) -> Mapping[str, commands.Word]:
    """Give the words of the centre; a hold gets the id of the command that placed it."""

    def place(command_id: str, args: Json) -> commands.Answer:
        return commands.Answer(f"hold {holds.place(args, _by(command_id), command_id)}")

    def release(command_id: str, args: Json) -> commands.Answer:
        wanted = wire.check("release", args)
        holds.release(wanted["hold"], wanted["reason"], wanted["by"], _by(command_id))
        return commands.Answer(f"hold {wanted['hold']} let go")

    return {"hold": place, "release": release}


def box_words(holds: Holds, second: SecondCopy) -> Mapping[str, requests.Do]:
    """Give the words of people at the dock."""

    def place(request: Request) -> Json:
        return {"hold": holds.place({**request.args, "by": request.by}, _via(request))}

    def release(request: Request) -> Json:
        name, reason = (str(request.args.get(key, "")) for key in ("hold", "reason"))
        holds.release(name, reason, request.by, _via(request))
        return {"hold": name}

    def allow(request: Request) -> Json:
        session, reason = (str(request.args.get(key, "")) for key in ("session", "reason"))
        second.allow(session, reason, request.by)
        return {"session": session}

    return {"hold": place, "release": release, "dock.allow_wipe": allow}


def tag_words(tags: Tags) -> Mapping[str, requests.Do]:
    """Give the word that says what a file is about."""

    def tag(request: Request) -> Json:
        wanted = dict(request.args)
        footage_id = str(wanted.pop("footage", ""))
        return tags.tag(footage_id, wanted, request.by, _via(request))

    return {"footage.tag": tag}


def words_of(
    config: DockRole, store: Store, clock: Clock, custody: Custody
) -> Mapping[str, requests.Do]:
    """Give the words of people at the dock for a dock that is not running."""
    second = SecondCopy(config.dock.wipe, config.state_dir, store, clock, custody)
    return box_words(Holds(store, clock, custody), second)


def _by(command_id: str) -> str:
    return f"{BY_CENTRE} {command_id}"


def _via(request: Request) -> str:
    return "" if request.uid < 0 else f"user {request.uid}"
