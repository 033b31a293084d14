"""Slots in plain text: what `outpost status` and the terminal view say of one."""

from collections.abc import Mapping
from typing import Any

from agent.docking import tongues
from agent.docking.states import Word
from agent.docking.tongues import Language

Slot = Mapping[str, Any]
"""A slot as in `outpost status --json`."""

BYTES_PER_MB = 1_000_000
SURE_MS = 2000  # a camera tells whole seconds
MINUTE_S, DAY_S = 60, 86_400
SHORT_ENDS_S = 90


def row(slot: Slot, language: Language) -> dict[str, str]:
    """Give a slot as a row of a table."""
    return {
        "slot": slot["slot"],
        "camera": slot["camera"] or "-",
        "officer": slot["officer"] or "-",
        "now": now(slot, language),
        "files": files(slot),
        "MB": megabytes(slot),
        "left": left(slot),
        "battery": battery(slot),
        "clock": clock(slot["clock_offset_ms"]),
        "footage": footage(slot, language),
        "notes": " ".join(slot["notes"]) or "-",
    }


def line(slot: Slot, language: Language) -> str:
    """Give a slot as one sentence, for a log or a screen reader."""
    parts = [now(slot, language)]
    if slot["camera"]:
        parts += [slot["camera"]]
    if slot["officer"]:
        parts += [slot["officer"]]
    if slot["files_total"]:
        parts += [f"{files(slot)} files", f"{megabytes(slot)} MB"]
    if slot["state"] == "copying":
        parts += [f"{left(slot)} left"]
    if slot["footage"]:
        parts += [footage(slot, language)]
    return f"slot {slot['slot']}: {', '.join(parts)}"


def news(slot: Slot) -> tuple[Any, ...]:
    """Give what of a slot is worth a new line when it changes; bytes and minutes are not."""
    return tuple(
        slot[key] for key in ("word", "code", "camera", "officer", "footage", "files_done")
    )


def now(slot: Slot, language: Language) -> str:
    """Give the word of a slot, and the technician's code."""
    word = tongues.word(language, Word(slot["word"]))
    return f"{word} {slot['code']}".rstrip()


def files(slot: Slot) -> str:
    """Give how many files are safe, of how many."""
    return f"{slot['files_done']}/{slot['files_total']}" if slot["files_total"] else "-"


def megabytes(slot: Slot) -> str:
    """Give how much is safe, of how much."""
    if not slot["files_total"]:
        return "-"
    done, total = (slot[key] / BYTES_PER_MB for key in ("bytes_done", "bytes_total"))
    return f"{done:.0f}/{total:.0f}"


def left(slot: Slot) -> str:
    """Give how long copying takes still; `?` as long as nobody can know."""
    if slot["state"] != "copying":
        return "-"
    seconds = slot["seconds_left"]
    if seconds is None:
        return "?"
    return "<1 min" if seconds < MINUTE_S else f"{-(-seconds // MINUTE_S)} min"


def battery(slot: Slot) -> str:
    """Give the charge."""
    percent = slot["battery_percent"]
    return "-" if percent is None else f"{percent} %"


def clock(offset_ms: int | None) -> str:
    """Give how far a camera's clock was ahead (+) or behind (-)."""
    if offset_ms is None:
        return "-"
    if abs(offset_ms) <= SURE_MS:
        return "right"
    sign, seconds = "-" if offset_ms < 0 else "+", round(abs(offset_ms) / 1000)
    if seconds < SHORT_ENDS_S:
        return f"{sign}{seconds} s"
    minutes = round(seconds / MINUTE_S)
    if minutes < MINUTE_S:
        return f"{sign}{minutes} min"
    if seconds < 2 * DAY_S:
        return f"{sign}{minutes // MINUTE_S} h {minutes % MINUTE_S:02} min"
    return f"{sign}{round(seconds / DAY_S)} days"


def footage(slot: Slot, language: Language) -> str:
    """Give where the footage is."""
    return tongues.text(language, slot["footage"]) if slot["footage"] else "-"
