"""WS-Discovery: asks the network which ONVIF cameras there are (OASIS WS-Discovery 1.0).

One SOAP 1.2 probe to the multicast group, then whoever answers within the time. Answers are text of
strangers: what cannot be read is passed over, and at most `MAX_FOUND` are kept.
"""

import contextlib
import re
import socket
import time
import uuid
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from agent.core.errors import SourceLost
from drivers import _soap as soap

GROUP: Final = ("239.255.255.250", 3702)
MAX_FOUND: Final = 256
MAX_DATAGRAM_BYTES: Final = 16_384
REPEATS: Final = 2  # UDP may lose the first
HOPS: Final = 1

_PROBE: Final = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"'
    ' xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing"'
    ' xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery"'
    ' xmlns:dn="http://www.onvif.org/ver10/network/wsdl"><s:Header>'
    "<a:Action>http://schemas.xmlsoap.org/ws/2005/04/discovery/Probe</a:Action>"
    "<a:MessageID>uuid:{message}</a:MessageID>"
    "<a:To>urn:schemas-xmlsoap-org:ws:2005:04:discovery</a:To></s:Header>"
    "<s:Body><d:Probe><d:Types>dn:NetworkVideoTransmitter</d:Types></d:Probe></s:Body></s:Envelope>"
)
_SCOPE: Final = re.compile(r"onvif://www\.onvif\.org/(name|hardware|location)/(\S+)")


@dataclass(frozen=True, slots=True)
class Found:
    """A camera that answered."""

    host: str
    port: int
    endpoint: str  # its own id, the same under every address
    name: str
    hardware: str


def discover(timeout_s: float, interface: str = "", group: tuple[str, int] = GROUP) -> list[Found]:
    """Give the cameras that answer within the time, by address.

    Args:
        timeout_s: how long to listen.
        interface: our address on the network to ask; the default one if empty.
        group: where to ask.

    Raises:
        SourceLost: the network cannot be asked.
    """
    found: dict[str, Found] = {}
    with contextlib.closing(_asked(interface, group)) as link:
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0 and len(found) < MAX_FOUND:
            link.settimeout(left_s)
            try:
                answer, sender = link.recvfrom(MAX_DATAGRAM_BYTES)
            except OSError:
                break
            camera = _read(answer, str(sender[0]))
            if camera is not None:
                found.setdefault(camera.endpoint, camera)
    return sorted(found.values(), key=lambda item: (item.host, item.port))


def _asked(interface: str, group: tuple[str, int]) -> socket.socket:
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, HOPS)
        if interface:
            own = socket.inet_aton(interface)
            link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
            link.bind((interface, 0))
        probe = _PROBE.format(message=uuid.uuid1()).encode()
        for _ in range(REPEATS):
            link.sendto(probe, group)
    except OSError as error:
        link.close()
        where = interface or "the default network"
        raise SourceLost(
            f"discovery on {where}: {error.strerror}; allowed: our own address on that network"
        ) from None
    return link


def _read(answer: bytes, sender: str) -> Found | None:
    """Read a ProbeMatch; a camera is believed to be only where it sent from."""
    try:
        match = soap.first(soap.parse(answer, sender), "ProbeMatch")
    except SourceLost:
        return None
    if match is None:
        return None
    scopes = {
        name: unquote(value)[:64] for name, value in _SCOPE.findall(soap.text_of(match, "Scopes"))
    }
    for address in soap.text_of(match, "XAddrs").split():
        try:
            parts = urlsplit(address)
            port = parts.port or 80
        except ValueError:
            continue
        if parts.scheme == "http" and parts.hostname == sender:
            endpoint = soap.text_of(match, "EndpointReference", "Address")[:128] or address[:128]
            name, hardware = scopes.get("name", ""), scopes.get("hardware", "")
            return Found(sender, port, endpoint, _plain(name), _plain(hardware))
    return None


def _plain(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())
