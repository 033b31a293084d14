"""One MQTT v5 connection as a socket, never as a queue: the only home of paho.

paho keeps unsent messages in RAM, ignores the broker's Receive Maximum and Maximum Packet
Size, and resends only on its own reconnect. So every connection gets a new paho client, paho's
own window is switched off, and the limits of the CONNACK are handed to the caller, who keeps
the window. One thread owns a session: `publish` writes, `poll` reads and returns what came.
"""

import select
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from paho.mqtt import MQTTException
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.core.clock import NS_PER_S, Clock
from agent.core.errors import AuthRefused, UplinkDown
from agent.delivery.config import BrokerConfig

CLOSE_TIMEOUT_S = 1.0
READS_PER_POLL = 256  # then the caller gets a turn
READ_BYTES_PER_POLL = 4 << 20  # also: what was read is held in memory until then
NO_LIMIT_MESSAGES = 65_535  # MQTT v5: Receive Maximum when the broker names none
NO_LIMIT_BYTES = 268_435_455  # MQTT: largest packet there is
RECEIVE_MAXIMUM = 128  # what the broker may have in flight towards us
TCP_CONGESTION = 13
SO_MAX_PACING_RATE = 47
NO_PACE = 0xFFFF_FFFF
MOST_NAME_BYTES = 16
BBR = b"bbr"
WITH_WILL = 0x04  # DISCONNECT that lets the broker publish the will
FAILED = 0x80
# Bad user or password, not authorised, banned, bad method, not authorised for the topic's filter.
_REFUSALS = frozenset({0x86, 0x87, 0x8A, 0x8C})
# What paho raises on packets that no broker should send.
_MALFORMED = (MQTTException, ValueError, IndexError, KeyError, TypeError, struct.error)


@dataclass(frozen=True, slots=True)
class Acked:
    """The broker answered a publish; below 0x80 it has taken it, 0x10 with nobody listening."""

    token: int
    code: int


@dataclass(frozen=True, slots=True)
class Received:
    """A message from the broker."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection has ended; nothing comes after it."""

    reason: str


SessionEvent = Acked | Received | Lost


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when the client is gone for `delay_s`."""

    topic: str
    payload: bytes
    delay_s: int = 30


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """Who connects and what the broker keeps for it."""

    client_id: str
    expiry_s: int = 604_800
    will: Will | None = None
    max_incoming_bytes: int = 512 * 1024
    connect_timeout_s: float = 10.0


class Session(Protocol):
    """One connection, used by one thread; consumers and tests may have their own."""

    @property
    def receive_maximum(self) -> int:
        """How many publishes the broker takes unacknowledged."""
        ...

    @property
    def max_packet_bytes(self) -> int:
        """Largest packet the broker takes, header included."""
        ...

    @property
    def session_present(self) -> bool:
        """Whether the broker still knew this client."""
        ...

    def connect(self) -> None:
        """Connect and wait for the broker's answer (UplinkDown, AuthRefused)."""
        ...

    def subscribe(self, topics: Sequence[str]) -> None:
        """Subscribe with QoS 1 and wait for the answer (UplinkDown, AuthRefused)."""
        ...

    def publish(self, topic: str, payload: bytes, *, is_retained: bool = False) -> int:
        """Send with QoS 1; the token comes back in `Acked` (UplinkDown)."""
        ...

    def poll(self, timeout_s: float) -> list[SessionEvent]:
        """Read and write what is due, waiting at most `timeout_s` for the first event."""
        ...

    @property
    def is_paced(self) -> bool:
        """Whether the kernel keeps the queue of this connection short by itself."""
        ...

    def pace(self, bytes_per_s: int) -> None:
        """Send no faster; 0: as fast as it goes."""
        ...

    def close(self) -> None:
        """Say goodbye and close the socket; a second call does nothing."""
        ...


class MqttSession:
    """A `Session` over TCP or TLS."""

    def __init__(self, broker: BrokerConfig, options: SessionOptions, clock: Clock) -> None:
        self._broker = broker
        self._options = options
        self._clock = clock
        self._client: Client | None = None
        self._events: list[SessionEvent] = []
        self._connack: ReasonCode | None = None
        self._subacks: dict[int, list[ReasonCode]] = {}
        self._lost: Lost | None = None
        self._read_bytes = 0
        self.receive_maximum = NO_LIMIT_MESSAGES
        self.max_packet_bytes = NO_LIMIT_BYTES
        self.session_present = False

    def connect(self) -> None:
        """Connect, and wait for the broker's answer.

        Raises:
            UplinkDown: nobody answers, or the broker declines for now; in the broker's words.
            AuthRefused: user, password or certificate are turned down.
        """
        broker = self._broker
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._options.expiry_s
        properties.ReceiveMaximum = RECEIVE_MAXIMUM
        properties.MaximumPacketSize = self._options.max_incoming_bytes
        try:
            self._client = self._build()
            self._client.connect(
                broker.host,
                broker.port,
                keepalive=broker.keepalive_s,
                clean_start=False,
                properties=properties,
            )
            self._await("connect", lambda: self._connack is not None)
        except (OSError, *_MALFORMED) as error:
            self.close()
            raise UplinkDown(f"{self._where}: {_words(error)}") from error
        except UplinkDown:
            self.close()
            raise
        self._judge()

    def subscribe(self, topics: Sequence[str]) -> None:
        """Subscribe with QoS 1, and wait for the answer.

        Raises:
            UplinkDown: the connection is lost or the broker does not answer.
            AuthRefused: the broker refuses a topic.
        """
        options = SubscribeOptions(qos=1)
        code, mid = self._connected.subscribe([(topic, options) for topic in topics])
        self._check_sent(code)
        if mid is None:
            raise UplinkDown(f"{self._where}: subscribe was not sent")
        self._await("subscribe", lambda: mid in self._subacks)
        for topic, answer in zip(topics, self._subacks.pop(mid), strict=False):
            if answer.value >= FAILED:
                raise AuthRefused(f"{self._where}: subscription {topic}: {answer}")

    def publish(self, topic: str, payload: bytes, *, is_retained: bool = False) -> int:
        """Send with QoS 1 and return the token that `Acked` will name.

        Raises:
            UplinkDown: the connection is lost.
        """
        sent = self._connected.publish(topic, payload, qos=1, retain=is_retained)
        self._check_sent(sent.rc)
        return sent.mid

    def poll(self, timeout_s: float) -> list[SessionEvent]:
        """Read and write what is due; wait at most `timeout_s` for the first event."""
        if not self._events and self._lost is None:
            self._turn(timeout_s)
        events, self._events = self._events, []
        if self._lost is not None:
            events.append(self._lost)
        return events

    @property
    def is_paced(self) -> bool:
        """Whether the connection is under BBR; see `_tune`."""
        with suppress(OSError, AttributeError):  # no socket any more
            name = self._socket.getsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, MOST_NAME_BYTES)
            return bool(name.rstrip(b"\0") == BBR)
        return False

    def pace(self, bytes_per_s: int) -> None:
        """Send no faster; 0: as fast as it goes. A kernel that cannot does not."""
        with suppress(OSError, AttributeError):
            limit = min(bytes_per_s or NO_PACE, NO_PACE)
            self._socket.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, limit)

    def close(self) -> None:
        """Disconnect so that the will still counts, and close the socket."""
        client, self._client = self._client, None
        if client is None:
            return
        if self._lost is None:
            self._lost = Lost("closed by us")
            with suppress(OSError, *_MALFORMED):
                self._say_goodbye(client)
        # Breaks the cycle of client and callbacks, so that paho's wake-up sockets close now.
        client.on_connect = client.on_disconnect = client.on_message = None
        client.on_publish = client.on_subscribe = client.on_socket_open = None

    def _build(self) -> Client:
        broker, options = self._broker, self._options
        client = Client(
            CallbackAPIVersion.VERSION2, options.client_id, protocol=MQTTProtocolVersion.MQTTv5
        )
        client.connect_timeout = options.connect_timeout_s
        client.max_inflight_messages_set(0)
        if broker.user:
            client.username_pw_set(broker.user, _password(broker.password_path))
        if broker.ca_path is not None:
            client.tls_set_context(_tls(broker))
        if options.will is not None:
            properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
            properties.WillDelayInterval = options.will.delay_s
            client.will_set(
                options.will.topic, options.will.payload, qos=1, retain=True, properties=properties
            )
        client.on_socket_open = _tune
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    def _judge(self) -> None:
        answer = self._connack
        if answer is None or answer.value < FAILED:
            return
        self.close()
        message = f"{self._where}: {answer}"
        raise AuthRefused(message) if answer.value in _REFUSALS else UplinkDown(message)

    def _await(self, step: str, is_done: Callable[[], bool]) -> None:
        limit_s = self._options.connect_timeout_s
        deadline_ns = self._clock.mono_ns() + int(limit_s * NS_PER_S)
        while not is_done():
            left_s = (deadline_ns - self._clock.mono_ns()) / NS_PER_S
            if self._lost is not None:
                raise UplinkDown(f"{self._where}: {step}: {self._lost.reason}")
            if left_s <= 0:
                raise UplinkDown(f"{self._where}: {step}: no answer in {limit_s:g} s")
            self._turn(left_s)

    def _turn(self, timeout_s: float) -> None:
        client = self._connected
        sock = client.socket()
        if sock is None:
            self._lose("connection lost")
            return
        poller = select.poll()
        poller.register(sock, select.POLLIN | (select.POLLOUT if client.want_write() else 0))
        wait_s = 0.0 if _has_pending(sock) else timeout_s
        ready = poller.poll(max(0.0, wait_s) * 1000)
        try:
            code = client.loop_write() if client.want_write() else MQTTErrorCode.MQTT_ERR_SUCCESS
            if ready and not code:
                code = self._read(client, poller)
            code = code or client.loop_misc()
        except (OSError, *_MALFORMED) as error:
            self._lose(f"malformed packet: {_words(error)}")
            return
        if code:
            self._lose(_error_words(code))

    def _read(self, client: Client, poller: "select.poll") -> MQTTErrorCode:
        self._read_bytes = 0
        for _ in range(READS_PER_POLL):
            code = client.loop_read()
            sock = client.socket()
            if code or sock is None:
                return code or MQTTErrorCode.MQTT_ERR_CONN_LOST
            self._check_size(client)
            if self._read_bytes >= READ_BYTES_PER_POLL:
                break
            if not _has_pending(sock) and not _is_readable(poller):
                break
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _check_size(self, client: Client) -> None:
        """Refuse a packet larger than we told the broker: paho would collect all 256 MiB of it."""
        claimed, limit = client._in_packet["remaining_length"], self._options.max_incoming_bytes  # noqa: SLF001 - nothing public tells it
        if claimed > limit:
            raise ValueError(f"packet of {claimed} bytes; allowed: {limit}")

    def _say_goodbye(self, client: Client) -> None:
        code = WITH_WILL if self._options.will is not None else 0
        client.disconnect(reasoncode=ReasonCode(PacketTypes.DISCONNECT, identifier=code))
        deadline_ns = self._clock.mono_ns() + int(CLOSE_TIMEOUT_S * NS_PER_S)
        while (sock := client.socket()) is not None and client.want_write():
            left_s = (deadline_ns - self._clock.mono_ns()) / NS_PER_S
            poller = select.poll()
            poller.register(sock, select.POLLOUT)
            if left_s <= 0 or not poller.poll(left_s * 1000) or client.loop_write():
                break
        if sock is not None:
            sock.close()

    @property
    def _connected(self) -> Client:
        if self._client is None or self._lost is not None:
            reason = "not connected" if self._lost is None else self._lost.reason
            raise UplinkDown(f"{self._where}: {reason}")
        return self._client

    @property
    def _socket(self) -> Any:
        return None if self._client is None else self._client.socket()

    @property
    def _where(self) -> str:
        return f"broker {self._broker.host}:{self._broker.port}"

    def _check_sent(self, code: MQTTErrorCode) -> None:
        if code:
            self._lose(_error_words(code))
            raise UplinkDown(f"{self._where}: {_error_words(code)}")

    def _lose(self, reason: str) -> None:
        if self._lost is None:
            self._lost = Lost(reason)

    def _on_connect(
        self,
        _client: Client,
        _userdata: Any,
        flags: ConnectFlags,
        answer: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._connack = answer
        self.session_present = bool(flags.session_present)
        self.receive_maximum = max(1, getattr(properties, "ReceiveMaximum", NO_LIMIT_MESSAGES))
        self.max_packet_bytes = getattr(properties, "MaximumPacketSize", NO_LIMIT_BYTES)

    def _on_disconnect(
        self,
        _client: Client,
        _userdata: Any,
        _flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._lose(str(reason))

    def _on_publish(
        self,
        _client: Client,
        _userdata: Any,
        mid: int,
        answer: ReasonCode,
        _properties: Properties,
    ) -> None:
        self._events.append(Acked(mid, answer.value))

    def _on_subscribe(
        self,
        _client: Client,
        _userdata: Any,
        mid: int,
        answers: list[ReasonCode],
        _properties: Properties,
    ) -> None:
        self._subacks[mid] = answers

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        # An unreadable topic would come again with every session; acknowledged, it is gone.
        self._read_bytes += len(message.payload)
        with suppress(UnicodeDecodeError):
            self._events.append(Received(message.topic, bytes(message.payload)))


def reason_words(code: int) -> str:
    """Give the name of a PUBACK reason code, such as `0x87 Not authorized`."""
    try:
        return f"0x{code:02X} {ReasonCode(PacketTypes.PUBACK, identifier=code)}"
    except (KeyError, *_MALFORMED):
        return f"0x{code:02X}"


def _tune(_client: Client, _userdata: Any, sock: Any) -> None:
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with suppress(
        OSError
    ):  # six to nine times the speed of cubic at 1 % loss, where the kernel has it
        sock.setsockopt(socket.IPPROTO_TCP, TCP_CONGESTION, BBR)


class _TlsSocket(ssl.SSLSocket):
    """Closes when the handshake fails; paho would leave that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def _tls(broker: BrokerConfig) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(broker.ca_path))
    context.sslsocket_class = _TlsSocket
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if broker.cert_path is not None and broker.key_path is not None:
        context.load_cert_chain(broker.cert_path, broker.key_path)
    return context


def _password(path: Path | None) -> str | None:
    return None if path is None else path.read_text().strip("\r\n")


def _has_pending(sock: Any) -> bool:
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0


def _is_readable(poller: "select.poll") -> bool:
    return any(flags & select.POLLIN for _, flags in poller.poll(0))


def _error_words(code: int) -> str:
    try:
        name = MQTTErrorCode(code).name
    except ValueError:
        return f"error {code}"
    return name.removeprefix("MQTT_ERR_").lower().replace("_", " ")


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
