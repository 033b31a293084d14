"""Finding, trying and adding cameras, for a technician at the roadside.

What a command needs is imported inside it, as in `app`.
"""

import json
import statistics
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from agent import app
from agent.core.clock import NS_PER_S, RealClock
from agent.core.config import Kinded
from agent.core.errors import (
    AgentError,
    AuthRefused,
    ConfigError,
    SourceLost,
    StorageError,
    Unsupported,
)
from agent.core.files import write_atomic

WATCH_S: Final = 4.0
MAX_CLOCK_OFFSET_S: Final = 5.0
LONG_GOP_S: Final = 5.0
MAX_SUB_WIDTH_PX: Final = 1280

_RATE_DIGITS: Final = 1


@dataclass(frozen=True, slots=True)
class Streams:
    """Where a camera's streams come from."""

    main: Kinded
    sub: Kinded | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """What a stream showed in a few seconds; `cure` is empty where all is well."""

    stream: str
    is_good: bool
    codec: str = ""
    size: str = ""
    rate: str = ""
    key_every_s: str = ""
    kbit_per_s: str = ""
    clock_off_s: str = ""
    result: str = "good"
    cure: str = ""

    def row(self) -> dict[str, str]:
        """Give a row of the table."""
        names = ("codec", "size", "rate", "key_every_s", "kbit_per_s", "clock_off_s", "result")
        return {"stream": self.stream, **{name: getattr(self, name) or "-" for name in names}}


def discover(timeout_s: float, interface: str) -> list[dict[str, str]]:
    """Give the cameras that answer on the network, as rows.

    Raises:
        SourceLost: the network cannot be asked.
    """
    from drivers import _discovery as discovery

    return [
        {
            "add it with": f"onvif://{found.host}" + (f":{found.port}" if found.port != 80 else ""),  # noqa: PLR2004 - http's
            "name": found.name or "-",
            "model": found.hardware or "-",
        }
        for found in discovery.discover(timeout_s, interface)
    ]


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
    settings = app.load_config(file, overrides)
    known = {item.id: Streams(item.main, item.sub) for item in settings.cameras}
    if camera and camera not in known:
        raise ConfigError(f"camera {camera!r}; allowed: {', '.join(known)}")
    return {camera: known[camera]} if camera else known


def trials(streams: Streams, watch_s: float = WATCH_S) -> Iterator[Trial]:
    """Try each stream of a camera for some seconds."""
    yield trial("main", streams.main, watch_s)
    if streams.sub is not None:
        yield trial("sub", streams.sub, watch_s)


def trial(name: str, choice: Kinded, watch_s: float = WATCH_S) -> Trial:
    """Open a stream, watch it for a while, and say how it is."""
    clock = RealClock()
    source = app.source(choice, clock)
    try:
        with closing(source):
            info = source.open()
            packets, deadline_s = [], time.monotonic() + watch_s
            for packet in source.packets():
                packets.append(packet)
                if time.monotonic() > deadline_s:
                    break
    except AgentError as error:
        return Trial(name, is_good=False, result=str(error), cure=_cure(error))
    return _judged(name, info, packets)


def snapshot(streams: Streams) -> bytes:
    """Give a JPEG of what the camera sees: its own where ONVIF gives one, else a key frame.

    Raises:
        SourceLost, AuthRefused, Unsupported: as the driver says.
    """
    from agent.vision import offline

    clock = RealClock()
    if streams.main.kind == "onvif":
        from drivers import onvif

        device = onvif.Device(streams.main.settings, clock)
        try:
            return device.snapshot(device.chosen())
        except (Unsupported, SourceLost):
            pass  # then out of its stream
    source = app.source(streams.main, clock)
    try:
        for frame in offline.frames(source, key_frames_only=True):
            return frame.jpeg()
    finally:
        source.close()
    raise SourceLost("the camera sent no picture")


def add(file: Path, camera: str, streams: Streams) -> str:
    """Append a camera to a configuration, comments and all left as they are; gives the new text.

    Raises:
        ConfigError: the file has mistakes, there is such a camera, or the result has mistakes.
        StorageError: it cannot be written.
    """
    try:
        before = file.read_text()
        cameras = tomllib.loads(before).get("cameras", [])
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; allowed: a device's configuration") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error
    if any(item.get("id") == camera for item in cameras):
        raise ConfigError(f"{file}: there is a camera {camera!r}; allowed: a new id")
    text = _table(camera, streams)
    after = before.rstrip("\n") + "\n\n" + text
    trial_file = file.with_name(f".{file.name}.new")
    try:
        write_atomic(trial_file, after.encode())
        try:
            app.load_config(trial_file, check_files=False)
        except ConfigError as error:
            named = (problem.replace(str(trial_file), str(file)) for problem in error.problems)
            raise ConfigError(*named) from error
        trial_file.replace(file)
    except OSError as error:
        raise StorageError(f"{file}: not written: {error.strerror}") from error
    finally:
        trial_file.unlink(missing_ok=True)
    return text


def _judged(name: str, info: Any, packets: Sequence[Any]) -> Trial:
    keys = [packet.pts_us for packet in packets if packet.is_key]
    times = sorted(packet.pts_us for packet in packets)
    span_s = (times[-1] - times[0]) / 1e6 if len(times) > 1 else 0.0
    arrival_s = (packets[-1].arrival_mono_ns - packets[0].arrival_mono_ns) / NS_PER_S
    size_bits = 8 * sum(len(packet.payload) for packet in packets)
    offsets = [
        (packet.camera_utc_ns - packet.utc_ns) / NS_PER_S
        for packet in packets
        if packet.camera_utc_ns is not None
    ]
    gops_s = [(b - a) / 1e6 for a, b in pairwise(keys)]
    offset_s = statistics.median(offsets) if offsets else None
    result, cure = "good", ""
    if not gops_s:
        result = f"no second key frame in {max(span_s, arrival_s):.0f} s"
        cure = "set a key frame (I-frame) every 1 to 2 s at the camera"
    elif max(gops_s) > LONG_GOP_S:
        result, cure = "key frames are rare", "set a key frame every 1 to 2 s at the camera"
    elif offset_s is not None and abs(offset_s) > MAX_CLOCK_OFFSET_S:
        result, cure = "its clock is wrong", "set the time (NTP) at the camera"
    elif name == "sub" and info.width_px > MAX_SUB_WIDTH_PX:
        result, cure = "a large small stream", f"set it to {MAX_SUB_WIDTH_PX // 2} pixels or less"
    return Trial(
        stream=name,
        is_good=bool(gops_s),
        codec=info.codec,
        size=f"{info.width_px}x{info.height_px}",
        rate=f"{(len(times) - 1) / span_s:.{_RATE_DIGITS}f}/s" if span_s else "",
        key_every_s=f"{statistics.median(gops_s):.1f}" if gops_s else "",
        kbit_per_s=f"{size_bits / 1000 / span_s:.0f}" if span_s else "",
        clock_off_s="" if offset_s is None else f"{offset_s:+.1f}",
        result=result,
        cure=cure,
    )


def _cure(error: AgentError) -> str:
    if isinstance(error, AuthRefused):
        return "check user and password; cameras lock the account after some tries"
    text = str(error)
    if "refused" in text or "no answer" in text or "timed out" in text or "unreachable" in text:
        return "check power, cable and address; is it a camera of this network?"
    if "no such path" in text:
        return "check the path; `outpost cameras discover` finds it where the camera has ONVIF"
    if "does not send by" in text:
        return 'set transport = "auto"'
    return "see the message"


def _kinded(kind: str, **values: Any) -> Kinded:
    shape = app.kinds("driver")[kind]()
    return Kinded(kind, shape(**values))


def _host_and_port(address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port or 80
    except ValueError:
        raise ConfigError(f"address {address!r}; allowed: onvif://host[:port]") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("address holds a user or password; allowed: --user and --password-file")
    return host, port


def _table(camera: str, streams: Streams) -> str:
    lines = ["[[cameras]]", f"id = {json.dumps(camera)}"]
    for name, choice in (("main", streams.main), ("sub", streams.sub)):
        if choice is not None:
            lines += ["", f"[cameras.{name}]", f"driver = {json.dumps(choice.kind)}"]
            lines += [f"{key} = {value}" for key, value in _given(choice).items()]
    return "\n".join(lines) + "\n"


def _given(choice: Kinded) -> Mapping[str, str]:
    """Give what differs from the defaults, in TOML."""
    found = {}
    for item in fields(choice.settings):
        value = getattr(choice.settings, item.name)
        if value == item.default:
            continue
        value = str(value.absolute()) if isinstance(value, Path) else value
        found[item.name] = json.dumps(value)
    return found
