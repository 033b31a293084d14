"""Every kind of mistake a person can make in a configuration file, all told at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core import config, config_page
from agent.core.config import NAME, Doc, Kind, Kinded, Length, Range, ReadableFile
from agent.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Broker:
    """Where to."""

    host: Annotated[str, Doc("Name or address")] = "127.0.0.1"
    port: Annotated[int, Doc("TCP port"), Range(1, 65535)] = 1883
    keepalive_s: Annotated[float, Doc("Seconds"), Range(5, 3600)] = 30.0


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera."""

    id: Annotated[str, Doc("Name"), NAME]
    main: Annotated[Kinded, Doc("Main stream"), Kind("driver", key="driver")]
    points: Annotated[tuple[tuple[float, float], ...], Doc("Polygon"), Length(3, 5)] = ()
    rules: Annotated[tuple[Kinded, ...], Doc("Rules"), Kind("rule")] = ()

    def __post_init__(self) -> None:
        """Check what concerns several keys."""
        if len({rule.settings.name for rule in self.rules}) < len(self.rules):
            raise ConfigError("rules: two have one name", "rules: allowed: names that differ")


@dataclass(frozen=True, slots=True)
class Box:
    """A whole file."""

    device: Annotated[str, Doc("Name"), NAME]
    state_dir: Annotated[Path, Doc("Folder")]
    role: Annotated[Literal["camera", "dock"], Doc("Role")] = "camera"
    is_quiet: Annotated[bool, Doc("Says less")] = False
    key_path: Annotated[Path | None, Doc("Public key"), ReadableFile()] = None
    broker: Annotated[Broker, Doc("Broker")] = field(default_factory=Broker)
    cameras: Annotated[tuple[Camera, ...], Doc("Cameras"), Length(0, 4)] = ()


@dataclass(frozen=True, slots=True)
class Rtsp:
    """A network camera."""

    url: Annotated[str, Doc("URL")]
    stall_s: Annotated[float, Doc("Seconds"), Range(1, 60)] = 4.0


@dataclass(frozen=True, slots=True)
class Enter:
    """A zone."""

    name: Annotated[str, Doc("Name"), NAME]


def kinds(group: str) -> Mapping[str, Callable[[], type]]:
    return {"driver": {"rtsp": lambda: Rtsp}, "rule": {"zone_enter": lambda: Enter}}[group]


GOOD = """
device = "cam-1"
state_dir = "state"

[broker]
port = 8883
keepalive_s = 60            # a whole number is a number too

[[cameras]]
id = "gate"
points = [[0, 0.5], [1, 0.5], [1.0, 1.0]]

[cameras.main]
driver = "rtsp"
url = "rtsp://10.0.0.7/main"

[[cameras.rules]]
kind = "zone_enter"
name = "somebody"
"""


def load(folder: Path, text: str, overrides: tuple[str, ...] = (), **more: bool) -> Box:
    file = folder / "box.toml"
    file.write_text(text)
    return config.load(file, Box, kinds, overrides, **more)


def problems(folder: Path, text: str, overrides: tuple[str, ...] = (), **more: bool) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, overrides, **more)
    prefix = f"{folder / 'box.toml'}: "
    assert all(line.startswith(prefix) for line in caught.value.problems)
    return [line.removeprefix(prefix) for line in caught.value.problems]


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_a_good_file_becomes_frozen_records(tmp_path: Path) -> None:
    box = load(tmp_path, GOOD)
    assert box.state_dir == tmp_path / "state", "relative paths count from the file's folder"
    assert box.broker == Broker("127.0.0.1", 8883, 60.0)
    assert type(box.broker.keepalive_s) is float
    assert box.role == "camera"
    assert box.cameras[0].points == ((0.0, 0.5), (1.0, 0.5), (1.0, 1.0))
    assert box.cameras[0].main == Kinded("rtsp", Rtsp("rtsp://10.0.0.7/main"))
    assert box.cameras[0].rules == (Kinded("zone_enter", Enter("somebody")),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (changed('device = "cam-1"', ""), "device: missing; allowed: 1-63 of a-z 0-9 . _ -"),
        (changed('"cam-1"', "7"), "device: 7 is not a text"),
        (changed('"cam-1"', '"Cam/1"'), "device: 'Cam/1'; allowed: 1-63 of"),
        (changed('"cam-1"', '"cam-1\\n"'), "device: 'cam-1\\n'; allowed: 1-63 of"),
        (changed('"cam-1"', '"' + "x" * 64 + '"'), "device: '" + "x" * 59 + "…"),
        (changed('"state"', "false"), "state_dir: False is not a path"),
        (changed('"state"', '""'), "state_dir: '' is not a path"),
        (changed('"state"', '"a\\u0000b"'), "state_dir: 'a\\x00b' is not a path"),
        (changed("8883", '"8883"'), "broker.port: '8883' is not a whole number; allowed: a whole"),
        (changed("8883", "8883.0"), "broker.port: 8883.0 is not a whole number"),
        (changed("8883", "true"), "broker.port: True is not a whole number"),
        (changed("8883", "0"), "broker.port: 0 is out of range; allowed: a whole number from 1 to"),
        (changed("8883", "9" * 400), "broker.port: " + "9" * 60 + "… is out of range"),
        (changed("60 ", "nan "), "broker.keepalive_s: nan is not a number; allowed: a number from"),
        (changed("60 ", "inf "), "broker.keepalive_s: inf is not a number"),
        (changed("60 ", "4.9 "), "broker.keepalive_s: 4.9 is out of range"),
        (changed("port = ", "prot = "), "broker.prot: unknown key; did you mean 'port'?"),
        (changed("port = ", "zzz = "), "broker.zzz: unknown key; allowed: host, keepalive_s, port"),
        (changed("[broker]", "[brokr]"), "brokr: unknown key; did you mean 'broker'?"),
        (changed("[broker]", "broker = 7\n[x]"), "broker: 7 is not a table"),
        (changed("[[cameras]]", "[cameras]"), "cameras: {'id': 'gate'"),
        (changed('"gate"', '"Gate"'), "cameras[0].id: 'Gate'; allowed: 1-63 of"),
        (changed('driver = "rtsp"', ""), "cameras[0].main.driver: missing; allowed: rtsp"),
        (changed('"rtsp"', '"rstp"'), "cameras[0].main.driver: 'rstp' is no driver; did you mean"),
        (changed('"rtsp"', "1"), "cameras[0].main.driver: 1 is no driver; allowed: rtsp"),
        (changed("url =", "uri ="), "cameras[0].main.uri: unknown key; did you mean 'url'?"),
        (changed("url =", "stall_s = 0\nurl ="), "cameras[0].main.stall_s: 0.0 is out of range"),
        (changed("[1.0, 1.0]", "[1.0]"), "cameras[0].points[2]: 1 items; allowed: 2"),
        (changed("[1.0, 1.0]", '["a", 1.0]'), "cameras[0].points[2][0]: 'a' is not a number"),
        (changed(", [1.0, 1.0]", ""), "cameras[0].points: 2 items; allowed: 3 to 5"),
        (changed("[[0, 0.5], [1, 0.5], [1.0, 1.0]]", "3"), "cameras[0].points: 3 is not a list"),
        (
            changed('kind = "zone_enter"', ""),
            "cameras[0].rules[0].kind: missing; allowed: zone_enter",
        ),
        (
            GOOD + '[[cameras.rules]]\nkind = "zone_enter"\nname = "somebody"\n',
            "cameras[0]: rules: two have one name",
        ),
        ('role = "gate"\n' + GOOD, "role: 'gate'; allowed: camera, dock"),
        ("is_quiet = 1\n" + GOOD, "is_quiet: 1 is not true or false"),
        ('is_quiet = "no"\n' + GOOD, "is_quiet: 'no' is not true or false"),
        ('key_path = "gone.pub"\n' + GOOD, "key_path: "),
        ("", "device: missing"),
    ],
)
def test_one_mistake_is_told_with_its_place_and_its_cure(
    tmp_path: Path, text: str, told: str
) -> None:
    found = problems(tmp_path, text)
    assert found[0].startswith(told) or any(line.startswith(told) for line in found)
    assert all(len(line) < 300 for line in found)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = changed("8883", "0").replace('"cam-1"', '"Cam"').replace("url =", "uri =")
    text = text.replace('"zone_enter"', '"zone_entr"')
    assert [line.split(": ")[0] for line in problems(tmp_path, 'key_path = "gone"\n' + text)] == [
        "device",
        "broker.port",
        "cameras[0].main.uri",
        "cameras[0].main.url",
        "cameras[0].rules[0].kind",
        "key_path",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"device = ", "not TOML: "),
        (b'device = "a"\ndevice = "b"\n', "not TOML: "),
        (b"[broker]\n[broker]\n", "not TOML: "),
        (b"port = 08\n", "not TOML: "),
        (b"device = \xff\xfe", "not UTF-8 at byte 9; allowed: UTF-8 text"),
        (b"\xff\xfed\x00e\x00", "not UTF-8 at byte 0"),
        (b"\xef\xbb\xbfdevice = 'a'", "not TOML: "),
        (b"\0" * 4096, "not TOML: "),
    ],
)
def test_what_is_no_toml_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "box.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        config.load(file, Box, kinds)
    assert str(caught.value).startswith(f"{file}: {told}")


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: no such file"):
        config.load(tmp_path / "nowhere.toml", Box, kinds)
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config.load(tmp_path, Box, kinds)


def test_files_must_be_readable_only_where_they_are_looked_for(tmp_path: Path) -> None:
    text = 'key_path = "centre.pub"\n' + GOOD
    told = problems(tmp_path, text)
    path = tmp_path / "centre.pub"
    assert told == [
        f"key_path: {path}: No such file or directory; allowed: a file that can be read"
    ]
    assert load(tmp_path, text, check_files=False).key_path == path
    path.mkdir()
    assert problems(tmp_path, text)[0].startswith(f"key_path: {path}: Is a directory")
    path.rmdir()
    path.write_text("key")
    assert load(tmp_path, text).key_path == path


@pytest.mark.parametrize(
    ("override", "look", "value"),
    [
        ("broker.port=1884", lambda box: box.broker.port, 1884),
        ("broker.host=broker.example", lambda box: box.broker.host, "broker.example"),
        ("broker.host='1'", lambda box: box.broker.host, "1"),
        ("is_quiet=true", lambda box: box.is_quiet, True),
        ("role=dock", lambda box: box.role, "dock"),
        ("cameras.0.id=yard", lambda box: box.cameras[0].id, "yard"),
        (
            "cameras.0.main.url=rtsp://x/=?a=b",
            lambda box: box.cameras[0].main.settings.url[-4:],
            "?a=b",
        ),
        ("cameras.0.main.stall_s=9", lambda box: box.cameras[0].main.settings.stall_s, 9.0),
    ],
)
def test_single_values_are_overridden(
    tmp_path: Path, override: str, look: Callable[[Box], Any], value: object
) -> None:
    assert look(load(tmp_path, GOOD, (override,))) == value


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("broker.port", "--set: 'broker.port' names no value; allowed: table.key=value"),
        ("device.x=1", "--set: 'device.x=1' names no value"),
        ("cameras.7.id=x", "--set: 'cameras.7.id=x' names no value"),
        ("cameras.first.id=x", "--set: 'cameras.first.id=x' names no value"),
        ("broker.prot=1", "broker.prot: unknown key; did you mean 'port'?"),
        ("broker.port=x", "broker.port: 'x' is not a whole number"),
        ("=1", "--set: '=1' names no value"),
    ],
)
def test_an_override_that_says_nothing_is_told(tmp_path: Path, override: str, told: str) -> None:
    assert problems(tmp_path, GOOD, (override,))[0].startswith(told)


@given(text=st.text(max_size=200))
@settings(max_examples=150)
def test_no_text_does_anything_but_load_or_be_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ConfigError):
        config.load(file, Box, kinds)


toml_values = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    key=st.sampled_from(
        ["device", "state_dir", "role", "is_quiet", "key_path", "broker", "cameras"]
    ),
    value=toml_values,
)
@settings(max_examples=200)
def test_no_value_of_any_key_breaks_the_loader(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: Any
) -> None:
    file = tmp_path_factory.getbasetemp() / "value.toml"
    rest = {"device": '"a"', "state_dir": '"s"'}
    lines = [f"{name} = {text}" for name, text in rest.items() if name != key]
    file.write_text("\n".join([*lines, f"{key} = {toml(value)}"]), errors="surrogatepass")
    try:
        result: object = config.load(file, Box, kinds, check_files=False)
    except ConfigError as error:
        result = error
    if isinstance(result, ConfigError):
        assert result.problems
        assert all(str(file) in line for line in result.problems)
    else:
        assert isinstance(result, Box)


def toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(letter):08x}" for letter in value if letter < "\ud800") + '"'
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return str(value)


def test_the_page_names_every_key_with_what_is_allowed() -> None:
    page = config_page.page("Configuration", {"camera": Box}, {"driver": {"rtsp": Rtsp}})
    assert "### `broker`" in page
    assert "### `cameras[]`" in page
    assert "| `port` | a whole number from 1 to 65535 | `1883` | TCP port |" in page
    assert (
        "| `device` | 1-63 of a-z 0-9 . _ -, starting with a letter or digit | required |" in page
    )
    assert "| `main` | a driver table, chosen by its `driver` | required | Main stream |" in page
    assert "| `role` | camera, dock | `'camera'` | Role |" in page
    assert "| `key_path` | a path | none | Public key |" in page
    assert "## Driver `rtsp`" in page
    assert "| `stall_s` | a number from 1 to 60 | `4.0` | Seconds |" in page
