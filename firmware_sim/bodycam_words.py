"""What a simulated body camera answers on its serial line, in three dialects."""

import binascii
import json
from collections.abc import Callable
from typing import Any, Protocol

MAGIC = bytes.fromhex("A1B2C3D400")
DATA_BYTES = 100


class Camera(Protocol):
    """What the dialects ask of the camera."""

    serial: str
    model: str
    firmware: str
    officer: str
    password: str
    marks: list[str]
    settings: dict[str, str]
    orders: list[str]

    @property
    def percent(self) -> int:
        """Its charge."""
        ...

    def utc_ns(self) -> int:
        """The camera's own clock."""
        ...

    def set_utc_ns(self, utc_ns: int) -> None:
        """Set it."""
        ...

    def set_local(self, text: str) -> None:
        """Set it in local time: YYYYMMDDhhmmss, or the first or the last part of it."""
        ...

    def become_storage(self) -> None:
        """Leave the line."""
        ...


class LineWords:
    """The line protocol: JSON, CRC-16, a sequence number."""

    end = b"\n"

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._is_in = False
        self._last: tuple[int, bytes] | None = None
        self._words: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "identify": lambda _: {
                key: getattr(camera, key) for key in ("serial", "model", "firmware", "officer")
            },
            "clock": lambda _: {"utc_ns": camera.utc_ns()},
            "battery": lambda _: {"percent": camera.percent, "charging": True},
            "marks": lambda _: {"names": camera.marks},
        }
        self._orders: dict[str, Callable[[dict[str, Any]], None]] = {
            "set_clock": lambda order: camera.set_utc_ns(int(order["utc_ns"])),
            "configure": lambda order: camera.settings.update(order["settings"]),
            "storage": lambda _: camera.become_storage(),
        }

    def take(self, content: bytes) -> tuple[list[bytes], bytes]:
        """Give the answers to what came, and what is left of it."""
        *lines, rest = content.split(b"\n")
        return [answer for line in lines if (answer := self._answer(line))], rest

    def _answer(self, line: bytes) -> bytes:
        content, _, check = line.rpartition(b"*")
        if check != b"%04X" % binascii.crc_hqx(content, 0xFFFF):
            return b""
        order = json.loads(content)
        if self._last is not None and self._last[0] == order["seq"]:
            return self._last[1]
        answer = self._framed({"seq": order["seq"], **self._done(order)})
        self._last = (order["seq"], answer)
        return answer

    def _done(self, order: dict[str, Any]) -> dict[str, Any]:
        word = order["do"]
        self._camera.orders.append(word)
        if word == "hello":
            return {"ok": True}
        if word == "login":
            self._is_in = order["password"] == self._camera.password
            return {"ok": True} if self._is_in else {"ok": False, "error": "login"}
        if not self._is_in:
            return {"ok": False, "error": "login"}
        if word in self._orders:
            self._orders[word](order)
            return {"ok": True}
        if word not in self._words:
            return {"ok": False, "error": "unknown"}
        return {"ok": True, **self._words[word](order)}

    def _framed(self, document: dict[str, Any]) -> bytes:
        content = json.dumps(document, separators=(",", ":")).encode()
        return b"%s*%04X\n" % (content, binascii.crc_hqx(content, 0xFFFF))


class WordsA:
    """Dialect A: `@Word;length;payload;#`."""

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._is_in = False

    def take(self, content: bytes) -> tuple[list[bytes], bytes]:
        """Give the answers to what came, and what is left of it."""
        *frames, rest = content.split(b"#")
        return [self._answer(frame.decode("latin-1")) for frame in frames], rest

    def _answer(self, frame: str) -> bytes:
        word, _, payload = [*frame[frame.rfind("@") + 1 :].strip(";").split(";", 2), "", ""][:3]
        self._camera.orders.append(word)
        return f"{word};{self._done(word, payload)};#".encode()

    def _done(self, word: str, payload: str) -> str:
        if word == "Ver":
            self._is_in = payload == self._camera.password.rjust(8, "0")
            return "OK" if self._is_in else "NO"
        if not self._is_in:
            return "NO"
        if word == "Gdv":
            return f"{self._camera.serial},{self._camera.officer}"
        if word in ("Sdt", "Stm"):
            self._camera.set_local(payload)
            return "OK"
        if word == "ATH":
            self._camera.become_storage()
            return "OK"
        return "NO"


class WordsB:
    """Dialect B: binary orders."""

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._is_in = False

    def take(self, content: bytes) -> tuple[list[bytes], bytes]:
        """Give the answers to what came, and what is left of it."""
        answers = []
        while (start := content.find(MAGIC)) >= 0 and len(content) >= start + 10:
            head = content[start : start + 10]
            end = start + 10 + head[9]
            if len(content) < end:
                break
            answers.append(self._answer(head[5:8], content[start + 10 : end]))
            content = content[end:]
        return answers, content

    def _answer(self, code: bytes, payload: bytes) -> bytes:
        self._camera.orders.append(code.hex())
        data = self._done(code.hex(), payload)
        status = b"\x80" if data is not None else b"\x00"
        # The status takes the place of the code's second byte.
        head = MAGIC + code[:1] + status + code[2:] + b"\0"
        return head + (data or b"").ljust(DATA_BYTES, b"\0")

    def _done(self, code: str, payload: bytes) -> bytes | None:
        camera = self._camera
        if code == "e10020":
            return b"ABCDE"
        if code == "e10011":
            self._is_in = payload == camera.password.encode()
            return b"" if self._is_in else None
        words: dict[str, Callable[[], bytes]] = {
            "e10030": lambda: (
                camera.serial.encode().ljust(9, b"\0") + camera.officer.encode().ljust(8, b"\0")
            ),
            "e10041": lambda: self._set_clock(payload),
            "e10070": lambda: bytes([camera.percent]),
            "e10051": self._become_storage,
        }
        return words[code]() if self._is_in and code in words else None

    def _set_clock(self, payload: bytes) -> bytes:
        day = "".join(f"{part:02}" for part in payload[2:7])
        self._camera.set_local(f"{int.from_bytes(payload[:2], 'big'):04}{day}")
        return b""

    def _become_storage(self) -> bytes:
        self._camera.become_storage()
        return b""


def words_of(camera: Camera, dialect: str) -> LineWords | WordsA | WordsB:
    """Give what a camera answers in a dialect: line, a or b."""
    shapes: dict[str, type[LineWords | WordsA | WordsB]] = {
        "line": LineWords,
        "a": WordsA,
        "b": WordsB,
    }
    return shapes[dialect](camera)
