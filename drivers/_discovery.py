"""WS-Discovery: asks the network which ONVIF cameras there are (OASIS WS-Discovery 1.0).

One SOAP 1.2 probe to the multicast group, then whoever answers within the time. Answers are text of
strangers: what cannot be read is passed over, and at most `MAX_FOUND` are kept.
"""

import contextlib
import fcntl
import os
import re
import select
import socket
import struct
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from agent.core.errors import SourceLost
from drivers import _soap as soap
from drivers._web import plain

GROUP: Final = ("239.255.255.250", 3702)
MAX_FOUND: Final = 256
MAX_A_HOST: Final = 8
MAX_DATAGRAM_BYTES: Final = 16_384
TYPES: Final = ("dn:NetworkVideoTransmitter", "tds:Device", "dn:NetworkVideoTransmitter")
"""What is asked for, in turn: some know only one of them, and UDP may lose the first."""
HOPS: Final = 1
MAX_NAME: Final = 64

_ADDRESS_OF, _FLAGS_OF = 0x8915, 0x8913  # SIOCGIFADDR, SIOCGIFFLAGS of linux/sockios.h
_UP, _LOOPBACK, _MULTICAST = 0x1, 0x8, 0x1000  # of net/if.h
_IFREQ: Final = struct.Struct("16s240x")
_PROBE: Final = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"'
    ' xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing"'
    ' xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery"'
    ' xmlns:dn="http://www.onvif.org/ver10/network/wsdl"'
    ' xmlns:tds="http://www.onvif.org/ver10/device/wsdl"><s:Header>'
    "<a:Action>http://schemas.xmlsoap.org/ws/2005/04/discovery/Probe</a:Action>"
    "<a:MessageID>uuid:{message}</a:MessageID>"
    "<a:To>urn:schemas-xmlsoap-org:ws:2005:04:discovery</a:To></s:Header>"
    "<s:Body><d:Probe><d:Types>{kind}</d:Types></d:Probe></s:Body></s:Envelope>"
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
        interface: our address or device on the network to ask; all of them if empty.
        group: where to ask.

    Raises:
        SourceLost: no network can be asked.
    """
    found: dict[tuple[str, int], Found] = {}
    with contextlib.ExitStack() as stack:
        links = [stack.enter_context(link) for link in _asked(interface, group)]
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0 and len(found) < MAX_FOUND:
            for link in select.select(links, [], [], left_s)[0]:
                with contextlib.suppress(OSError):
                    answer, sender = link.recvfrom(MAX_DATAGRAM_BYTES)
                    camera = _read(answer, str(sender[0]))
                    if camera is not None and _has_room(found, camera):
                        found.setdefault((camera.host, camera.port), camera)
    return sorted(found.values(), key=lambda item: (socket.inet_aton(item.host), item.port))


def own_addresses() -> list[str]:
    """Give our IPv4 address on every network that can be asked, the loopback left out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        names = [name for _, name in socket.if_nameindex()]
        found = (_address_of(link, name) for name in names if _can_be_asked(link, name))
        return [address for address in found if address]


def _has_room(found: Mapping[tuple[str, int], Found], camera: Found) -> bool:
    """Whether a host may tell of one more: none may crowd the others out."""
    return sum(host == camera.host for host, _ in found) < MAX_A_HOST


def _asked(interface: str, group: tuple[str, int]) -> list[socket.socket]:
    """Ask every network and give the sockets that the answers come to."""
    own = [_address(interface)] if interface else own_addresses()
    links: list[socket.socket] = []
    reason = "no network is up"
    for address in own:
        link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, HOPS)
            link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
            link.bind((address, 0))
            for probe in _probes():
                link.sendto(probe, group)
        except OSError as error:
            link.close()
            reason = error.strerror or type(error).__name__
            continue
        links.append(link)
    if not links:
        raise SourceLost(
            f"discovery on {interface or 'any network'}: {reason}; allowed: our own address, or"
            " its device, on the cameras' network"
        )
    return links


def _probes() -> Iterator[bytes]:
    for kind in TYPES:
        message = uuid.UUID(bytes=os.urandom(16), version=4)
        yield _PROBE.format(message=message, kind=kind).encode()


def _address(interface: str) -> str:
    """Give the address of a device; an address stays what it is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        return _address_of(link, interface) or interface


def _can_be_asked(link: socket.socket, name: str) -> bool:
    try:
        answer = fcntl.ioctl(link, _FLAGS_OF, _IFREQ.pack(name.encode()))
    except OSError:
        return False
    (flags,) = struct.unpack_from("H", answer, 16)
    return bool(flags & _UP and flags & _MULTICAST and not flags & _LOOPBACK)


def _address_of(link: socket.socket, name: str) -> str:
    try:
        answer = fcntl.ioctl(link, _ADDRESS_OF, _IFREQ.pack(name.encode()))
    except OSError:
        return ""
    return socket.inet_ntoa(answer[20:24])


def _read(answer: bytes, sender: str) -> Found | None:
    """Read a ProbeMatch; a camera is believed to be only where it sent from."""
    try:
        match = soap.first(soap.parse(answer, sender), "ProbeMatch")
    except SourceLost:
        return None
    if match is None:
        return None
    scopes = {
        name: plain(unquote(value), MAX_NAME)
        for name, value in _SCOPE.findall(soap.text_of(match, "Scopes"))
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
            return Found(sender, port, plain(endpoint), name, hardware)
    return None
