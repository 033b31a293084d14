"""docs/CONFIG.md out of the configuration's dataclasses, so that the page cannot drift."""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from agent.core.config import Doc, Kind, allowed, hint_parts, note, without_none


def tables(shape: type, where: str, seen: set[tuple[str, type]] | None = None) -> list[str]:
    """Give the Markdown sections of a dataclass and of every table inside it."""
    seen = set() if seen is None else seen
    if (where, shape) in seen:
        return []
    seen.add((where, shape))
    lines = [f"### `{where or 'top level'}`", "", (shape.__doc__ or "").splitlines()[0], ""]
    lines += ["| key | allowed | default | meaning |", "| --- | --- | --- | --- |"]
    inner: list[str] = []
    hints = get_type_hints(shape, include_extras=True)
    for item in fields(shape):
        lines.append(_row(item, hints[item.name], getattr(shape, "LEVELS", {})))
        nested = _nested(hints[item.name])
        if nested is not None:
            brackets = get_origin(without_none(hint_parts(hints[item.name])[0])) is tuple
            spot = f"{where}.{item.name}" if where else item.name
            inner += tables(nested, f"{spot}[]" if brackets else spot, seen)
    return [*lines, "", *inner]


def page(title: str, roles: Mapping[str, type], groups: Mapping[str, Mapping[str, type]]) -> str:
    """Give the whole page: every role's tables, then every driver's and every rule's."""
    lines = [f"# {title}", "", "Made from the program by `outpost check --page`; do not edit.", ""]
    for role, shape in roles.items():
        lines += [f"## Role `{role}`", "", *tables(shape, "")]
    for group, kinds in groups.items():
        for kind, shape in sorted(kinds.items()):
            lines += [f"## {group.capitalize()} `{kind}`", "", *tables(shape, kind)]
    return "\n".join(lines).rstrip() + "\n"


def _row(item: "Field[Any]", hint: Any, levels: Mapping[str, Any]) -> str:
    _, notes = hint_parts(hint)
    meaning = note(notes, Doc)
    text = meaning.text if meaning else ""
    default = _default(item)
    if item.name in levels:
        default = "by sensitivity: " + ", ".join(f"{level:g}" for level in levels[item.name])
    return f"| `{item.name}` | {_allowed_here(hint)} | {default} | {text} |"


def _allowed_here(hint: Any) -> str:
    plain, notes = hint_parts(hint)
    kind = note(notes, Kind)
    if kind is not None:
        return f"a {kind.group} table, chosen by its `{kind.key}`"
    if _nested(hint) is not None:
        return "tables" if get_origin(plain) is tuple else "a table"
    return allowed(hint).removeprefix("allowed: ").replace("|", "\\|")


def _default(item: "Field[Any]") -> str:
    factory: Any = item.default_factory
    if item.default is MISSING and factory is MISSING:
        return "required"
    if factory is not MISSING:
        return "its keys' defaults" if is_dataclass(factory) else "`[]`"
    value = item.default
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"`{list(value)!r}`"
    return f"`{str(value) if isinstance(value, Path) else value!r}`"


def _nested(hint: Any) -> type | None:
    plain = without_none(hint_parts(hint)[0])
    if get_origin(plain) is tuple:
        plain = hint_parts(get_args(plain)[0])[0]
    return (
        plain
        if isinstance(plain, type) and is_dataclass(plain) and plain.__name__ != "Kinded"
        else None
    )
