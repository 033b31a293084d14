"""The parts of a large file as a `need` hands them out: presigned URLs, one a range of the file.

Nothing of a URL is believed: it may only go to a host that this box's own configuration names, by
https but for the loopback. A need is not signed, so without that list whoever reaches the broker
could have footage uploaded to wherever he likes, or use the box to knock at its neighbours.
"""

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass, field

from agent.core import web
from agent.core.errors import HashMismatch, MalformedMessage
from agent.core.wire import Json

LOCALHOST = "localhost"


class ForbiddenHost(HashMismatch):
    """A part's URL leads to where this box may not upload."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part: bytes [start, end) of the file and the URL that takes them, once."""

    number: int
    start: int
    end: int
    url: str = field(repr=False)  # holds a signature


def read_parts(need: Json, size_bytes: int) -> tuple[Part, ...]:
    """Give the parts of a need in the order of the file, all inside it and none over another.

    Raises:
        MalformedMessage: a part is empty, outside of the file, over another or numbered twice.
    """
    told = sorted(need.get("parts", ()), key=lambda item: int(item["from"]))
    found: list[Part] = []
    for item in told:
        part = Part(int(item["part"]), int(item["from"]), int(item["to"]), str(item["url"]))
        least = found[-1].end if found else 0
        if not least <= part.start < part.end <= size_bytes:
            raise MalformedMessage(
                f"need: part {part.number} of bytes {part.start} to {part.end};"
                f" allowed: disjoint, inside {least} to {size_bytes}"
            )
        found.append(part)
    if len({part.number for part in found}) < len(found):
        raise MalformedMessage("need: a part stands twice; allowed: each number once")
    return tuple(found)


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == LOCALHOST


def check_url(url: str, allowed: Collection[str]) -> None:
    """Refuse a URL that leads elsewhere than the configuration allows.

    Args:
        url: as it came.
        allowed: hosts, each `host` (any port 443) or `host:port`.

    Raises:
        MalformedMessage: it is no URL of http or https.
        ForbiddenHost: its host is not listed, or it is not https.
    """
    where = web.place(url)
    names = {f"{where.host}:{where.port}"}
    if where.port == web.HTTPS_PORT:
        names.add(where.host)
    if names.isdisjoint(name.lower() for name in allowed):
        raise ForbiddenHost(
            f"upload to {where.host}:{where.port}; allowed by delivery.bulk_hosts:"
            f" {', '.join(allowed) or 'none'}"
        )
    if where.scheme != "https" and not is_loopback(where.host):
        raise ForbiddenHost(f"upload to {where.said} by {where.scheme}; allowed: https")
