"""Body cameras that are spoken to over a serial line, in the dialects that we know.

A dialect is a module `_bodycam_<name>.py` with `STRICTNESS` and `build`; being there is enough.
"""

import importlib
import pkgutil
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agent.core.clock import Clock
from agent.core.config import Doc, Range, ReadableFile
from agent.core.dock import CameraLink
from agent.core.errors import ConfigError, Unsupported
from drivers._bodycam_port import Port

PROBE_S = 0.4
AUTO = "auto"
PREFIX, SHARED = "_bodycam_", "port"
ALLOWED = "[ -~]{0,32}"


@dataclass(frozen=True, slots=True)
class Config:
    """How cameras are spoken to."""

    dialect: Annotated[str, Doc("line: our own; a, b: of common cameras; auto: each is tried")] = (
        AUTO
    )
    password_path: Annotated[
        Path | None, Doc("File with the cameras' password, one line"), ReadableFile()
    ] = None
    timezone: Annotated[str, Doc("Of cameras that tell local time")] = "UTC"
    baud: Annotated[int, Doc("Speed of the line, in bit/s"), Range(300, 4_000_000)] = 115_200
    timeout_s: Annotated[float, Doc("How long an answer may take"), Range(0.05, 30)] = 1.0

    def __post_init__(self) -> None:
        if self.dialect not in (AUTO, *dialects()):
            allowed = ", ".join((AUTO, *dialects()))
            raise ConfigError(f"dialect: {self.dialect!r}; allowed: {allowed}")
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigError(
                f"timezone: {self.timezone!r}; allowed: a name such as Asia/Almaty"
            ) from error


class _Dialect(CameraLink, Protocol):
    def probe(self, timeout_s: float) -> bool: ...


def dialects() -> list[str]:
    """Give the names of all dialects, from the one with the strictest answers to the loosest."""
    package = importlib.import_module("drivers")
    found = [item.name for item in pkgutil.iter_modules(package.__path__)]
    names = [name.removeprefix(PREFIX) for name in found if name.startswith(PREFIX)]
    known = [name for name in names if name != SHARED]
    return sorted(known, key=lambda name: -_module(name).STRICTNESS)


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

    def dialect(name: str) -> _Dialect:
        zone = ZoneInfo(config.timezone)
        made: _Dialect = _module(name).build(opened, password, zone, config.timeout_s, clock)
        return made

    if config.dialect != AUTO:
        return dialect(config.dialect)
    for name in dialects():
        link = dialect(name)
        if link.probe(PROBE_S):
            return link
    opened.close()
    raise Unsupported(f"camera {port}: speaks none of: {', '.join(dialects())}")


def _module(name: str) -> Any:
    return importlib.import_module(f"drivers.{PREFIX}{name}")


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
