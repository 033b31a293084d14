"""Body cameras that are spoken to over a serial line, in the dialects that we know."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agent.core.clock import Clock
from agent.core.config import Doc, Range, ReadableFile
from agent.core.dock import CameraLink
from agent.core.errors import ConfigError, Unsupported
from drivers._bodycam_a import DialectA
from drivers._bodycam_b import DialectB
from drivers._bodycam_line import Line
from drivers._bodycam_port import Port

PROBE_S = 0.4
ALLOWED = "[ -~]{0,32}"


@dataclass(frozen=True, slots=True)
class Config:
    """How cameras are spoken to."""

    dialect: Annotated[
        Literal["auto", "line", "a", "b"],
        Doc("line: our own; a, b: of common cameras; auto: each is tried"),
    ] = "auto"
    password_path: Annotated[
        Path | None, Doc("File with the cameras' password, one line"), ReadableFile()
    ] = None
    timezone: Annotated[str, Doc("Of cameras that tell local time")] = "UTC"
    baud: Annotated[int, Doc("Speed of the line, in bit/s"), Range(300, 4_000_000)] = 115_200
    timeout_s: Annotated[float, Doc("How long an answer may take"), Range(0.05, 30)] = 1.0

    def __post_init__(self) -> None:
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigError(
                f"timezone: {self.timezone!r}; allowed: a name such as Asia/Almaty"
            ) from error


class _Dialect(CameraLink, Protocol):
    def probe(self) -> bool: ...


def open_link(port: str, config: Config, clock: Clock) -> CameraLink:
    """Open a line to a camera; it is logged in with the first order.

    Raises:
        SourceLost: the port is not there.
        DeviceBusy: somebody else has it open.
        Unsupported: whoever is there speaks none of our dialects.
        ConfigError: the password cannot be read.
    """
    password = _password(config)
    opened = Port(port, config.baud, clock)
    if config.dialect != "auto":
        return _dialect(config.dialect, opened, config, password, clock)
    for name in ("line", "b", "a"):  # from the strictest answer to the loosest
        if _dialect(name, opened, config, password, clock, PROBE_S).probe():
            return _dialect(name, opened, config, password, clock)
    opened.close()
    raise Unsupported(f"camera {port}: speaks none of: line, a, b")


def _dialect(
    name: str, port: Port, config: Config, password: str, clock: Clock, timeout_s: float = 0
) -> _Dialect:
    limit_s = timeout_s or config.timeout_s
    if name == "line":
        return Line(port, password, limit_s, clock)
    shape = DialectA if name == "a" else DialectB
    return shape(port, password, ZoneInfo(config.timezone), limit_s, clock)


def _password(config: Config) -> str:
    if config.password_path is None:
        return ""
    try:
        found = config.password_path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"password_path: {config.password_path}: {error}") from error
    if not re.fullmatch(ALLOWED, found):
        raise ConfigError(
            f"password_path: {config.password_path}: allowed: up to 32 printable ASCII characters"
        )
    return found
