"""Finding, trying and adding cameras, for a technician at the roadside.

What a command needs is imported inside it, as in `app`.
"""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from agent import app
from agent.core.clock import RealClock
from agent.core.config import Kinded
from agent.core.errors import (
    AgentError,
    AuthRefused,
    ConfigError,
    SourceLost,
    StorageError,
    Unsupported,
)
from agent.core.files import atomic
from agent.device import trial
from agent.device.trial import LOOK_S, Trial
from agent.vision.config import CameraConfig

if TYPE_CHECKING:
    from drivers._discovery import Found

AT_ONCE: Final = 8  # cameras tried at the same time
ASK_S: Final = 3.0
HTTP_PORT: Final = 80
NO_SUB: Final = (
    "no small stream: only the main one's key frames will be analysed; --sub-url names one"
)


@dataclass(frozen=True, slots=True)
class Streams:
    """Where a camera's streams come from; `camera` is its table, if it has one."""

    main: Kinded
    sub: Kinded | None = None
    camera: CameraConfig | None = None


def discover(timeout_s: float, interface: str) -> list[dict[str, str]]:
    """Give the cameras that answer on the network, as rows.

    Raises:
        SourceLost: the network cannot be asked.
    """
    from drivers import _discovery as discovery

    found = discovery.discover(timeout_s, interface)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(_introduced, found))


def streams_of(address: str, user: str, password: Path | None) -> Streams:
    """Give the streams of an address.

    Args:
        address: rtsp://…, rtsps://…, onvif://host[:port], v4l2:/dev/… or a video file.
        user: at the camera.
        password: file whose first line is the password.

    Raises:
        ConfigError: no such address.
    """
    login = {"user": user, "password_path": password}
    if address.startswith(app.URL_SCHEMES):
        return Streams(_kinded("rtsp", url=address, **login))
    if address.startswith("onvif://"):
        host, port = _host_and_port(address)
        main, sub = (
            _kinded("onvif", host=host, port=port, profile=profile, **login)
            for profile in ("main", "sub")
        )
        return Streams(main, sub)
    if address.startswith("v4l2:"):
        return Streams(_kinded("v4l2", path=Path(address.removeprefix("v4l2:"))))
    if Path(address).is_file():
        return Streams(_kinded("file", path=Path(address), is_looped=True, is_realtime=True))
    raise ConfigError(
        f"address {address!r}; allowed: rtsp://…, rtsps://…, onvif://host[:port], v4l2:/dev/…"
        " or a video file"
    )


def configured(file: Path, overrides: Sequence[str], camera: str) -> dict[str, Streams]:
    """Give the streams of the cameras of a configuration, or of one of them.

    Raises:
        ConfigError: it has mistakes, or no such camera.
    """
    settings = app.load_camera(file, overrides, check_files=False)
    known = {item.id: Streams(item.main, item.sub, item) for item in settings.cameras}
    if camera and camera not in known:
        raise ConfigError(f"camera {camera!r}; allowed: {', '.join(known)}")
    return {camera: known[camera]} if camera else known


def trials(
    cameras: Mapping[str, Streams], look_s: float = LOOK_S
) -> Iterator[tuple[str, dict[str, Trial]]]:
    """Try the streams of cameras, each for some seconds; gives them in their order.

    Several devices are tried at the same time, cameras behind one device and login in turn: after
    a login was turned down once, they are not tried, so that a recorder locks nobody out.
    """
    shared: dict[tuple[str, str], list[str]] = {}
    for name, streams in cameras.items():
        shared.setdefault(_device_of(name, streams), []).append(name)

    def tried_in_turn(names: Sequence[str]) -> dict[str, dict[str, Trial]]:
        found: dict[str, dict[str, Trial]] = {}
        for name in names:
            refused = [one for one in found if found[one]["main"].is_refused]
            found[name] = (
                {"main": _untried(f"at {refused[0]}")} if refused else tried(cameras[name], look_s)
            )
        return found

    with ThreadPoolExecutor(AT_ONCE) as pool:
        all_found: dict[str, dict[str, Trial]] = {}
        for found in pool.map(tried_in_turn, shared.values()):
            all_found |= found
    yield from ((name, all_found[name]) for name in cameras)


def tried(streams: Streams, look_s: float = LOOK_S) -> dict[str, Trial]:
    """Try a camera's streams in turn."""
    main = _attempt(streams.main, look_s)
    return {"main": main} | _sub_after(main, streams, look_s)


def tried_new(streams: Streams) -> tuple[Streams, dict[str, Trial]]:
    """Try a camera that is not configured; without its small stream if that is its main one."""
    main = _attempt(streams.main, LOOK_S)
    if main.is_good:
        streams = _with_own_sub(streams)
    if main.is_good and streams.sub is None:
        main = replace(main, advice=(*main.advice, NO_SUB))
    return streams, {"main": main} | _sub_after(main, streams, LOOK_S)


def snapshot(streams: Streams) -> bytes:
    """Give a JPEG of what the camera sees: its own where ONVIF gives one, else a key frame.

    Privacy masks of its table are black in it.

    Raises:
        SourceLost, AuthRefused, Unsupported: as the driver says.
    """
    from agent.vision import masks, offline

    veil = None if streams.camera is None else masks.of(streams.camera)
    if streams.main.kind == "onvif" and veil is None:
        from drivers import onvif

        device = onvif.Device(streams.main.settings, RealClock())
        try:
            return device.snapshot(device.chosen())
        except (Unsupported, SourceLost):
            pass  # then out of its stream
    source = app.source(streams.main, RealClock())
    try:
        for frame in offline.frames(source, key_frames_only=True):
            return frame.jpeg(veil)
    finally:
        source.close()
    raise SourceLost("the camera sent no picture")


@dataclass(frozen=True, slots=True)
class Addition:
    """A camera's table, and the file as it will be with it."""

    file: Path
    table: str
    content: str

    def write(self) -> None:
        """Put it in the file's place, whole or not at all, with the same owner and mode.

        Raises:
            StorageError: it cannot be written; the file is as it was.
        """
        try:
            was = self.file.stat()
            with atomic(self.file) as stream:
                os.fchown(stream.fileno(), was.st_uid, was.st_gid)
                os.fchmod(stream.fileno(), was.st_mode & 0o7777)
                stream.write(self.content.encode())
        except OSError as error:
            raise StorageError(f"{self.file}: not written: {error.strerror}") from error


def addition(file: Path, camera: str, streams: Streams) -> Addition:
    """Give what appending a camera makes of a configuration; comments and all stay as they are.

    Raises:
        ConfigError: the file has mistakes, there is such a camera, or the result has mistakes.
        StorageError: the folder cannot be written.
    """
    file = file.resolve()  # what a link names, not the link, is replaced
    try:
        before = file.read_text()
        cameras = tomllib.loads(before).get("cameras", [])
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; allowed: a device's configuration") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error
    tables = cameras if isinstance(cameras, list) else []
    ids = [item.get("id") for item in tables if isinstance(item, dict)]
    if camera in ids:
        raise ConfigError(f"{file}: there is a camera {camera!r}; allowed: a new id")
    table = _table(camera, streams)
    found = Addition(file, table, before.rstrip("\n") + "\n\n" + table)
    _check(found)
    return found


def _check(found: Addition) -> None:
    """Load the file as it will be, from beside it, so that relative paths are right."""
    beside = found.file.with_name(f".{found.file.name}.new")
    try:
        beside.write_text(found.content)
        app.load_camera(beside, check_files=False)
    except ConfigError as error:
        named = (problem.replace(str(beside), str(found.file)) for problem in error.problems)
        raise ConfigError(*named) from error
    except OSError as error:
        raise StorageError(f"{found.file}: not written: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)


def _sub_after(main: Trial, streams: Streams, look_s: float) -> dict[str, Trial]:
    if streams.sub is None:
        return {}
    if main.is_refused:
        return {"sub": _untried("at main")}
    return {"sub": _attempt(streams.sub, look_s, is_sub=True)}


def _untried(where: str) -> Trial:
    return Trial(fault=f"not tried: the login was turned down {where}", cure=f"as {where}")


def _device_of(name: str, streams: Streams) -> tuple[str, str]:
    """Give the device and login that a camera shares with others; itself where it has none."""
    settings = streams.main.settings
    url = urlsplit(str(getattr(settings, "url", "")))
    host = url.hostname or str(getattr(settings, "host", name))
    return host, str(getattr(settings, "user", ""))


def _attempt(choice: Kinded, look_s: float, *, is_sub: bool = False) -> Trial:
    clock = RealClock()
    return trial.attempt(app.source(choice, clock), clock, look_s, is_sub=is_sub)


def _with_own_sub(streams: Streams) -> Streams:
    """Leave the small stream out where the camera has only one."""
    if streams.sub is None or streams.main.kind != "onvif":
        return streams
    from drivers import onvif

    try:
        has_two = len(onvif.Device(streams.main.settings, RealClock()).profiles()) > 1
    except AgentError:
        return streams  # its trial will say why
    return streams if has_two else replace(streams, sub=None)


def _introduced(found: "Found") -> dict[str, str]:
    """Give the row of a camera: what it says of itself to one without a login."""
    from drivers import onvif

    port = "" if found.port == HTTP_PORT else f":{found.port}"
    row = {"address": f"onvif://{found.host}{port}", "name": found.name, "model": found.hardware}
    settings = onvif.Config(found.host, found.port, open_timeout_s=ASK_S)
    try:
        about = onvif.Device(settings, RealClock()).about()
    except AuthRefused:
        row["login"] = "user and password"
    except (SourceLost, Unsupported):
        row["login"] = "not known: it does not answer"
    else:
        row["login"] = "none"
        row["model"] = row["model"] or f"{about.manufacturer} {about.model}".strip()
    return row


def _kinded(kind: str, **values: Any) -> Kinded:
    shape = app.kinds("driver")[kind]()
    return Kinded(kind, shape(**values))


def _host_and_port(address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port or HTTP_PORT
    except ValueError:
        raise ConfigError(f"address {address!r}; allowed: onvif://host[:port]") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("address holds a user or password; allowed: --user and --password-file")
    return host, port


def _table(camera: str, streams: Streams) -> str:
    lines = ["[[cameras]]", f"id = {_toml(camera)}"]
    for name, choice in (("main", streams.main), ("sub", streams.sub)):
        if choice is not None:
            lines += ["", f"[cameras.{name}]", f"driver = {_toml(choice.kind)}"]
            lines += [f"{key} = {value}" for key, value in _given(choice).items()]
    return "\n".join(lines) + "\n"


def _given(choice: Kinded) -> Mapping[str, str]:
    """Give what differs from the defaults, in TOML."""
    found = {}
    for item in fields(choice.settings):
        value = getattr(choice.settings, item.name)
        if value == item.default:
            continue
        found[item.name] = _toml(str(value.absolute()) if isinstance(value, Path) else value)
    return found


def _toml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
