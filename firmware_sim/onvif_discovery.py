"""WS-Discovery of a simulated camera: says hello and goodbye, answers probes on one network."""

import socket
import struct
import threading
from typing import Final, Protocol

GROUP: Final = "239.255.255.250"
DISCOVERY_PORT: Final = 3702


class Device(Protocol):
    """The camera that is found."""

    host: str
    port: int
    lock: threading.Lock
    counters: dict[str, int]


class Discovery:
    """Answers WS-Discovery probes on one network."""

    def __init__(self, camera: Device, interface: str) -> None:
        self._camera = camera
        self._link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._link.bind(("", DISCOVERY_PORT))
        own = socket.inet_aton(interface)
        member = struct.pack("4s4s", socket.inet_aton(GROUP), own)
        self._link.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        self._link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
        self._say("Hello")

    def serve(self) -> None:
        """Answer until the process ends."""
        while True:
            probe, sender = self._link.recvfrom(65_536)
            if b"Probe" not in probe or b"ProbeMatch" in probe:
                continue
            with self._camera.lock:
                self._camera.counters["probes"] += 1
            self._link.sendto(self._text("ProbeMatches", "ProbeMatch").encode(), sender)

    def goodbye(self) -> None:
        """Say that the camera leaves."""
        self._say("Bye")

    def _say(self, word: str) -> None:
        self._link.sendto(self._text(word, "").encode(), (GROUP, DISCOVERY_PORT))

    def _text(self, word: str, inner: str) -> str:
        camera = self._camera
        about = (
            "<a:EndpointReference><a:Address>urn:uuid:51303030-0000-0000-0000-000000000001"
            "</a:Address></a:EndpointReference><d:Types>dn:NetworkVideoTransmitter</d:Types>"
            "<d:Scopes>onvif://www.onvif.org/name/Sim%20Camera"
            " onvif://www.onvif.org/hardware/SIM-1</d:Scopes>"
            f"<d:XAddrs>http://{camera.host}:{camera.port}/onvif/device_service</d:XAddrs>"
        )
        about = f"<d:{inner}>{about}</d:{inner}>" if inner else about
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"'
            ' xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing"'
            ' xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery"'
            ' xmlns:dn="http://www.onvif.org/ver10/network/wsdl">'
            f"<s:Body><d:{word}>{about}</d:{word}></s:Body></s:Envelope>"
        )
