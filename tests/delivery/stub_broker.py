"""MQTT v5 at the wire, badly behaved on purpose: says what the test tells it to, no more."""

import socket
import struct
import threading


def _varint(value):
    out = bytearray()
    while True:
        value, digit = divmod(value, 128)
        out.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(out)


class StubBroker:
    """Takes connections one after another; `acks` decides on each PUBLISH: a code or None."""

    def __init__(self, *, acks=lambda _topic: 0, connack=0, suback=1, **limits):
        self.acks = acks
        self.connack = connack
        self.suback = suback
        self.properties = b""
        if "receive_maximum" in limits:
            self.properties += b"\x21" + struct.pack("!H", limits["receive_maximum"])
        if "max_packet" in limits:
            self.properties += b"\x27" + struct.pack("!I", limits["max_packet"])
        self.published = []  # (topic, payload, packet id)
        self.connects = 0
        self.ended = 0
        self.unacked = set()
        self.most_unacked = 0
        self.disconnects = []  # reason codes
        self.after_connack = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._socket = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self):
        self._listener.close()
        with self._lock:
            if self._socket is not None:
                self._socket.close()
        # accept() does not return on close() everywhere: one more connection wakes it
        with socket.socket() as wake:
            wake.connect_ex(("127.0.0.1", self.port))
        self._thread.join(2)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, packet):
        with self._lock:
            self._socket.sendall(packet)

    def puback(self, packet_id, code=0):
        self.unacked.discard(packet_id)
        self.send(b"\x40\x04" + struct.pack("!HBB", packet_id, code, 0))

    def publish(self, topic, payload):
        name = topic.encode()
        body = struct.pack("!H", len(name)) + name + b"\x00" + payload
        self.send(b"\x30" + _varint(len(body)) + body)

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._socket = connection
            self.unacked.clear()
            try:
                self._talk(connection)
            except (OSError, EOFError):
                pass
            finally:
                self.ended += 1
                connection.close()

    def _talk(self, connection):
        while True:
            kind, body = self._packet(connection)
            if kind >> 4 == 1:
                self.connects += 1
                answer = bytes([0, self.connack, len(self.properties)]) + self.properties
                self.send(b"\x20" + _varint(len(answer)) + answer + self.after_connack)
            elif kind >> 4 == 3:
                self._published(body)
            elif kind >> 4 == 8:
                self._subscribed(body)
            elif kind >> 4 == 12:
                self.send(b"\xd0\x00")
            elif kind >> 4 == 14:
                self.disconnects.append(body[0] if body else 0)
                return

    def _subscribed(self, body):
        topics, at = 0, 3  # after the packet id and empty properties
        while at < len(body):
            at += 2 + struct.unpack("!H", body[at : at + 2])[0] + 1
            topics += 1
        answer = body[:2] + b"\x00" + bytes([self.suback]) * topics
        self.send(b"\x90" + _varint(len(answer)) + answer)

    def _published(self, body):
        size = struct.unpack("!H", body[:2])[0]
        topic = body[2 : 2 + size].decode()
        packet_id = struct.unpack("!H", body[2 + size : 4 + size])[0]
        self.published.append((topic, body[5 + size :], packet_id))
        self.unacked.add(packet_id)
        self.most_unacked = max(self.most_unacked, len(self.unacked))
        code = self.acks(topic)
        if code is not None:
            self.puback(packet_id, code)

    def _packet(self, connection):
        kind = self._exactly(connection, 1)[0]
        size, shift = 0, 0
        while True:
            digit = self._exactly(connection, 1)[0]
            size |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                return kind, self._exactly(connection, size)

    def _exactly(self, connection, count):
        data = b""
        while len(data) < count:
            piece = connection.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data
