"""The terminal beside the dock: large words, calm, readable from where one stands."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from agent.docking import lines, tongues
from agent.docking.codes import meaning
from agent.docking.states import Word
from agent.docking.tongues import Language

OLD_S = 5  # the agent tells every second
WORD_CELLS = 25  # the longest of all words, with its code
STYLES = {
    "off": "dim",
    "amber": "bold black on yellow",
    "green": "bold black on green",
    "blue": "bold white on blue",
    "red": "bold white on red",
}


def screen(status: Mapping[str, Any], language: Language, height: int = 25) -> RenderableType:
    """Give the whole picture of what a running dock told.

    Args:
        status: as `outpost status --json` has it.
        language: of the words.
        height: lines of the terminal; 80 columns are enough.
    """
    if not status.get("running"):
        return Text("\n  The dock's agent does not run: nothing here is known.\n", "bold red")
    slots: Sequence[lines.Slot] = status.get("slots", ())
    table = Table.grid(padding=(0, 1), collapse_padding=True)
    for width in (3, WORD_CELLS, 14, 18, 14):
        table.add_column(width=width, no_wrap=True, overflow="ellipsis")
    foot = _foot(slots)
    is_airy = 3 * len(slots) + len(foot.plain.splitlines()) + 3 <= height
    for slot in slots:
        _add(table, slot, language)
        if is_airy:
            table.add_row()
    return Group(_head(status), Text(), table, *([foot] if foot.plain else []))


def _head(status: Mapping[str, Any]) -> Text:
    text = Text(f" {status.get('device', '')}", "bold")
    link = status.get("link", "")
    text.append(f"   link to the centre: {link}", "dim" if link == "connected" else "yellow")
    if (age_s := status.get("age_s", 0)) > OLD_S:
        text.append(f"   nothing new for {age_s} s", "bold red")
    return text


def _add(table: Table, slot: lines.Slot, language: Language) -> None:
    style = STYLES[slot["colour"]]
    if slot["word"] == Word.TAKE:
        style += " blink"
    table.add_row(
        Text(f"{slot['slot']:>3}", "bold"),
        Text(f" {lines.now(slot, language)}".ljust(WORD_CELLS), style),
        Text(slot["camera"], "bold"),
        Text(slot["officer"]),
        Text(_files(slot, language)),
    )
    told = lines.footage(slot, language) if slot["footage"] else ""
    table.add_row(
        "",
        Text(f" {told}", "" if slot["footage"] == "on_camera" else "green"),
        Text(_charge(slot, language)),
        Text(_clock(slot, language)),
        Text(_rest(slot, language)),
    )


def _files(slot: lines.Slot, language: Language) -> str:
    named = tongues.text(language, "n_files")
    return f"{lines.files(slot)} {named}" if slot["files_total"] else ""


def _charge(slot: lines.Slot, language: Language) -> str:
    named = tongues.text(language, "battery")
    return "" if slot["battery_percent"] is None else f"{named} {lines.battery(slot)}"


def _clock(slot: lines.Slot, language: Language) -> str:
    told = lines.clock(slot["clock_offset_ms"])
    return "" if told in ("-", "right") else f"{tongues.text(language, 'clock_is')} {told}"


def _rest(slot: lines.Slot, language: Language) -> str:
    """Say how long it takes still, or why a camera whose footage is safe is not to be taken."""
    if slot["state"] == "copying":
        told = lines.left(slot)
        return tongues.text(language, "min_left").format("? min" if told == "?" else told)
    if slot["state"] in ("wiping", "checked"):
        return tongues.text(language, "clearing")
    return tongues.text(language, "card_full") if slot["waits_for"] == "wipe" else ""


def _foot(slots: Sequence[lines.Slot]) -> Text:
    """Say what each code on the screen means: nobody should need the page for it."""
    codes = sorted({slot["code"] for slot in slots if slot["code"]})
    return Text("\n".join(f" {code}: {meaning(code).sentence}" for code in codes), "red")
