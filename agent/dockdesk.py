"""What people ask of a dock: what its slots show, how footage stands, an officer's receipt."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import app
from agent.core.errors import ConfigError
from agent.roles.config import DockRole

if TYPE_CHECKING:
    from agent.docking.tongues import Language


def load(file: Path, overrides: Sequence[str]) -> DockRole:
    """Read a dock's configuration.

    Raises:
        ConfigError: with one line for every mistake; also if it is a box of another role.
    """
    settings = app.load_config(file, overrides, check_files=False)
    if not isinstance(settings, DockRole):
        raise ConfigError(f"{file}: role: {settings.role!r}; allowed for this command: 'dock'")
    return settings


def table(
    slots: Sequence[Mapping[str, Any]], file: Path, overrides: Sequence[str]
) -> Sequence[Mapping[str, str]]:
    """Give slots, as a running dock told them, as rows of a table."""
    from agent.docking import lines

    language = load(file, overrides).dock.language
    return [lines.row(slot, language) for slot in slots]


def told(settings: DockRole) -> tuple[dict[str, Any], "Language"]:
    """Give what a dock told of itself last, and the language of its words."""
    from agent.device import status

    return status.read(settings.state_dir), settings.dock.language


def sentences(settings: DockRole) -> dict[str, tuple[object, str]]:
    """Give by each slot's name what is worth a line of its own, and the line."""
    from agent.docking import lines

    status, language = told(settings)
    if not status["running"]:
        return {"": (None, "the dock's agent does not run: nothing here is known")}
    slots = status.get("slots", ())
    return {slot["slot"]: (lines.news(slot), lines.line(slot, language)) for slot in slots}
