"""What people at the box may want done with files on their way to the centre."""

from collections.abc import Mapping

from agent.core.errors import MalformedMessage
from agent.core.wire import Json
from agent.delivery.ledger import Ledger
from agent.device.requests import Do, Request


def words(ledger: Ledger) -> Mapping[str, Do]:
    """Give the words of people at the box."""

    def retry(request: Request) -> Json:
        fid = request.args.get("fid")
        if not isinstance(fid, str):
            raise MalformedMessage("fid is missing; allowed: the id of a file")
        return {"fid": fid, "name": ledger.retry(fid, request.by).name}

    return {"files.retry": retry}
