"""TOML into frozen dataclasses, strictly: every mistake at once, each with its cure.

A field is `name: Annotated[type, Doc("…"), Range(…)]`. A table whose `kind` (or `driver`)
chooses its shape is `Annotated[Kinded, Doc("…"), Kind("driver", key="driver")]`: the shape comes
from the resolver that `load` is given, so that a new driver or rule needs no line here.
Secrets are named by file, never written inline; relative paths count from the file's folder.
"""

import difflib
import math
import re
import tomllib
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from agent.core.errors import ConfigError

T = TypeVar("T")

TOO_LONG = 60  # characters of a wrong value that a message repeats


@dataclass(frozen=True, slots=True)
class Doc:
    """One line for docs/CONFIG.md."""

    text: str


@dataclass(frozen=True, slots=True)
class Range:
    """Smallest and largest value allowed, both included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression the whole text must match, and how to say it to a person."""

    regex: str
    allowed: str


@dataclass(frozen=True, slots=True)
class Length:
    """How many items a list may hold."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class ReadableFile:
    """The path must name a file that can be read when `outpost check` or `outpost run` looks."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The table's shape is found under the name that its `key` gives."""

    group: str
    key: str = "kind"


@dataclass(frozen=True, slots=True)
class Kinded:
    """A table of a chosen kind, already validated against that kind's own dataclass."""

    kind: str
    settings: Any


Resolver = Callable[[str], Mapping[str, Callable[[], type]]]
"""Group name -> the kinds of that group, each with a loader of its dataclass."""

NAME = Pattern(
    r"[a-z0-9][a-z0-9._-]{0,62}", "1-63 of a-z 0-9 . _ -, starting with a letter or digit"
)


@dataclass(slots=True)
class _Reader:
    file: Path
    resolver: Resolver
    problems: list[str] = field(default_factory=list)
    paths: list[tuple[str, Path]] = field(default_factory=list)

    def complain(self, where: str, what: str) -> None:
        self.problems.append(f"{self.file}: {where}: {what}")


def load(
    file: Path,
    shape: type[T],
    resolver: Resolver = lambda _group: {},
    overrides: Sequence[str] = (),
    *,
    check_files: bool = True,
) -> T:
    """Read and validate a configuration file.

    Args:
        file: the TOML file.
        shape: the dataclass of the whole file.
        resolver: finds the shapes of kinded tables.
        overrides: `table.key=value` texts that replace or add single values, value in TOML.
        check_files: whether files that must be readable are looked for.

    Raises:
        ConfigError: with one line for every mistake found.
    """
    table = _parse(file)
    reader = _Reader(file, resolver)
    for override in overrides:
        _override(table, override, reader)
    result = _read_table(table, shape, "", reader)
    if check_files:
        _check_files(reader)
    if reader.problems or result is None:
        raise ConfigError(*reader.problems)
    return result


def peek(file: Path, key: str, overrides: Sequence[str] = ()) -> object:
    """Give one value of the file as it stands, None if it is not there: to choose the file's shape.

    Raises:
        ConfigError: the file cannot be read.
    """
    table = _parse(file)
    for override in overrides:
        if override.partition("=")[0] == key:
            _override(table, override, _Reader(file, lambda _group: {}))
    return table.get(key)


def hint_parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Split a field's type hint into its plain type and its annotations."""
    if get_origin(hint) is Annotated:
        plain, *notes = get_args(hint)
        return plain, tuple(notes)
    return hint, ()


def note(notes: Sequence[Any], wanted: type[T]) -> T | None:
    """Give the first annotation of a class, if any."""
    return next((item for item in notes if isinstance(item, wanted)), None)


def without_none(plain: Any) -> Any:
    """Give `X` for `X | None`."""
    if get_origin(plain) in (Union, types.UnionType):
        rest = [part for part in get_args(plain) if part is not type(None)]
        return rest[0]
    return plain


def allowed(hint: Any) -> str:
    """Say in words what a field takes."""
    plain, notes = hint_parts(hint)
    plain = without_none(plain)
    if get_origin(plain) is Literal:
        return f"allowed: {', '.join(str(item) for item in get_args(plain))}"
    limit, pattern = note(notes, Range), note(notes, Pattern)
    if pattern is not None:
        return f"allowed: {pattern.allowed}"
    if limit is not None:
        return f"allowed: {_type_name(plain)} from {limit.low:.10g} to {limit.high:.10g}"
    return f"allowed: {_type_name(plain)}"


def _parse(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_bytes().decode())
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file}: not UTF-8 at byte {error.start}; allowed: UTF-8 text"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error


def _override(table: dict[str, Any], text: str, reader: _Reader) -> None:
    path, separator, value = text.partition("=")
    *parents, last = path.split(".")
    target: Any = table
    try:
        for parent in parents:
            target = (
                target[int(parent)] if isinstance(target, list) else target.setdefault(parent, {})
            )
    except (AttributeError, ValueError, IndexError):
        target = None
    if not separator or not last or not isinstance(target, dict):
        reader.complain(
            "--set", f"{text!r} names no value; allowed: table.key=value, lists by index from 0"
        )
        return
    try:
        target[last] = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        target[last] = value


def _read_table(table: Any, shape: type[T], where: str, reader: _Reader) -> T | None:
    if not isinstance(table, dict):
        reader.complain(where or "(file)", f"{_show(table)} is not a table")
        return None
    known = {item.name: item for item in fields(shape)}  # type: ignore[arg-type]
    before = len(reader.problems)
    for key in table:
        if key not in known:
            reader.complain(_join(where, key), f"unknown key{_nearest(key, known)}")
    values = _read_fields(table, shape, where, reader)
    if len(reader.problems) > before:
        return None
    try:
        return shape(**values)
    except ConfigError as error:
        for problem in error.problems:
            reader.complain(where or "(file)", problem)
        return None


def _read_fields(
    table: Mapping[str, Any], shape: type, where: str, reader: _Reader
) -> dict[str, Any]:
    hints = get_type_hints(shape, include_extras=True)
    values: dict[str, Any] = {}
    for item in fields(shape):
        spot = _join(where, item.name)
        if item.name in table:
            values[item.name] = _read_value(table[item.name], hints[item.name], spot, reader)
        elif _is_required(item):
            reader.complain(spot, f"missing; {allowed(hints[item.name])}")
    return values


def _read_value(value: Any, hint: Any, where: str, reader: _Reader) -> Any:
    plain, notes = hint_parts(hint)
    plain = without_none(plain)
    origin = get_origin(plain)
    if (kind := note(notes, Kind)) is not None and plain is Kinded:
        return _read_kinded(value, kind, where, reader)
    if origin is tuple:
        return _read_list(value, hint, where, reader)
    if is_dataclass(plain):
        return _read_table(value, plain, where, reader)  # type: ignore[arg-type]
    return _read_scalar(value, hint, where, reader)


def _read_list(value: Any, hint: Any, where: str, reader: _Reader) -> Any:
    plain, notes = hint_parts(hint)
    item_hint, *rest = get_args(plain)
    if not isinstance(value, list):
        reader.complain(where, f"{_show(value)} is not a list")
        return ()
    limit = note(notes, Length)
    fixed = None if rest in ([], [Ellipsis]) else 1 + len(rest)
    low, high = (fixed, fixed) if fixed else (limit.low, limit.high) if limit else (0, 10_000)
    if not low <= len(value) <= high:
        wanted = f"{low}" if low == high else f"{low} to {high}"
        reader.complain(where, f"{len(value)} items; allowed: {wanted}")
    kind = note(notes, Kind)
    if kind is not None:
        item_hint = cast("Any", Annotated[item_hint, kind])
    hints = get_args(plain) if fixed else [item_hint] * len(value)
    return tuple(
        _read_value(item, item_hint, f"{where}[{index}]", reader)
        for index, (item, item_hint) in enumerate(zip(value, hints, strict=False))
    )


def _read_kinded(value: Any, kind: Kind, where: str, reader: _Reader) -> Kinded | None:
    if not isinstance(value, dict):
        reader.complain(where, f"{_show(value)} is not a table")
        return None
    kinds = reader.resolver(kind.group)
    chosen = value.get(kind.key)
    spot = _join(where, kind.key)
    if chosen is None:
        reader.complain(spot, f"missing; allowed: {', '.join(sorted(kinds))}")
        return None
    if not isinstance(chosen, str) or chosen not in kinds:
        reader.complain(spot, f"{_show(chosen)} is no {kind.group}{_nearest(chosen, kinds)}")
        return None
    rest = {key: item for key, item in value.items() if key != kind.key}
    shape: type[object] = kinds[chosen]()
    settings = _read_table(rest, shape, where, reader)
    return None if settings is None else Kinded(chosen, settings)


def _read_scalar(value: Any, hint: Any, where: str, reader: _Reader) -> Any:
    plain, notes = hint_parts(hint)
    plain = without_none(plain)
    if get_origin(plain) is Literal:
        if value not in get_args(plain):
            reader.complain(where, f"{_show(value)}; {allowed(hint)}")
        return value
    if plain is float and type(value) is int:
        value = float(value)
    if plain is Path:
        return _read_path(value, notes, where, reader)
    if type(value) is not plain or (plain is float and not math.isfinite(value)):
        reader.complain(where, f"{_show(value)} is not {_type_name(plain)}; {allowed(hint)}")
        return value
    limit, pattern = note(notes, Range), note(notes, Pattern)
    if limit is not None and not limit.low <= value <= limit.high:
        reader.complain(where, f"{_show(value)} is out of range; {allowed(hint)}")
    if pattern is not None and not re.fullmatch(pattern.regex, value):
        reader.complain(where, f"{_show(value)}; {allowed(hint)}")
    return value


def _read_path(value: Any, notes: Sequence[Any], where: str, reader: _Reader) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        reader.complain(where, f"{_show(value)} is not a path; allowed: a text naming a file")
        return Path()
    path = (reader.file.parent / value).absolute()
    if note(notes, ReadableFile) is not None:
        reader.paths.append((where, path))
    return path


def _check_files(reader: _Reader) -> None:
    for where, path in reader.paths:
        try:
            with path.open("rb") as stream:
                stream.read(1)
        except OSError as error:
            reader.complain(where, f"{path}: {error.strerror}; allowed: a file that can be read")


def _is_required(item: "Field[Any]") -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _nearest(wrong: Any, right: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(wrong), list(right), n=1, cutoff=0.6)
    allowed = f"; allowed: {', '.join(sorted(right))}"
    return f"; did you mean {near[0]!r}?" if near else allowed


def _type_name(plain: Any) -> str:
    names = {
        str: "a text",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        Path: "a path",
        Kinded: "a table",
    }
    if get_origin(plain) is tuple:
        return "a list"
    return names.get(plain, "a table")


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= TOO_LONG else f"{text[:TOO_LONG]}…"
