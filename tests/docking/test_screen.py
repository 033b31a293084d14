"""The terminal beside the dock, and the same in plain lines."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from agent.docking import lines, tongues
from agent.docking.screen import WORD_CELLS, screen
from agent.docking.states import COLOURS, Word

EMPTY = {
    "slot": "1",
    "word": "Empty",
    "colour": "off",
    "code": "",
    "state": "empty",
    "waits_for": "",
    "camera": "",
    "officer": "",
    "files_done": 0,
    "files_total": 0,
    "bytes_done": 0,
    "bytes_total": 0,
    "seconds_left": None,
    "battery_percent": None,
    "clock_offset_ms": None,
    "footage": "",
    "notes": [],
    "session": "",
    "since_utc_ms": 0,
    "detail": "",
}
COPYING = EMPTY | {
    "word": "Busy",
    "colour": "amber",
    "state": "copying",
    "camera": "bc0001",
    "officer": "A. Weber",
    "files_done": 3,
    "files_total": 12,
    "bytes_done": 240_000_000,
    "bytes_total": 960_000_000,
    "seconds_left": 214,
    "battery_percent": 83,
    "clock_offset_ms": 25_200_000,
    "footage": "on_camera",
}
SAFE = COPYING | {
    "word": "Ready",
    "colour": "green",
    "state": "uploading",
    "files_done": 12,
    "bytes_done": 960_000_000,
    "seconds_left": None,
    "clock_offset_ms": 400,
    "footage": "in_dock",
}
CALL = SAFE | {
    "word": "Call technician",
    "colour": "red",
    "code": "D-11",
    "footage": "at_centre",
}


def pictured(slots, language="en", **told):
    console = Console(width=80, height=24, file=io.StringIO(), record=True)
    status = {"running": True, "device": "dock-0001", "link": "connected", "slots": slots}
    console.print(screen(status | told, language, console.height))
    return console.export_text().splitlines()


def test_eight_slots_fit_into_a_plain_terminal():
    slots = [EMPTY, COPYING, SAFE, CALL] * 2
    shown = pictured([slot | {"slot": str(number)} for number, slot in enumerate(slots, 1)])
    assert len(shown) < 24
    assert max(len(line) for line in shown) <= 80
    (first, second) = (line for line in shown[4:6])
    assert first.split() == ["2", "Busy", "bc0001", "A.", "Weber", "3/12", "files"]
    assert "still on camera" in second
    assert "battery 83 %" in second
    assert "clock +7 h 00 min" in second
    assert "4 min left" in second
    assert "D-11: Parts of the footage cannot be read any more." in shown[-1]


@pytest.mark.parametrize("language", tongues.LANGUAGES)
def test_no_word_is_cut_in_any_tongue(language):
    for word in Word:
        slot = CALL | {"word": str(word), "colour": COLOURS[word]}
        text = tongues.word(language, word)
        assert any(f" {text} D-11" in line for line in pictured([slot], language=language))
        assert cell_len(f" {text} D-11") <= WORD_CELLS
    for where in ("on_camera", "in_dock", "at_centre", "none"):
        text = tongues.text(language, where)
        shown = pictured([CALL | {"footage": where}], language=language)
        assert any(f" {text} " in line for line in shown)


def test_a_busy_slot_says_what_it_is_busy_with():
    clearing = SAFE | {"word": "Busy", "colour": "amber", "state": "wiping"}
    assert "clearing" in "\n".join(pictured([clearing]))
    full = SAFE | {"word": "Busy", "colour": "amber", "waits_for": "wipe"}
    assert "card full" in "\n".join(pictured([full]))
    assert "? min left" in "\n".join(pictured([COPYING | {"seconds_left": None}]))


@pytest.mark.parametrize("language", tongues.LANGUAGES)
def test_no_line_is_cut_in_any_tongue(language):
    long = COPYING | {"battery_percent": 100, "seconds_left": 59 * 60, "clock_offset_ms": 10**8}
    assert "…" not in "\n".join(pictured([long, SAFE | {"state": "wiping"}], language=language))


def test_without_an_agent_nothing_is_called_ready():
    shown = "\n".join(pictured([SAFE], running=False))
    assert "Ready" not in shown
    assert "does not run" in shown


def test_what_is_old_says_so():
    assert "nothing new" not in pictured([SAFE], age_s=2)[0]
    assert "nothing new for 61 s" in pictured([SAFE], age_s=61)[0]


def test_a_line_tells_all_that_the_screen_does():
    assert lines.line(COPYING, "en") == (
        "slot 1: Busy, bc0001, A. Weber, 3/12 files, 240/960 MB, 4 min left, still on camera"
    )
    assert lines.line(EMPTY, "en") == "slot 1: Empty"
    assert lines.line(CALL, "en").startswith("slot 1: Call technician D-11, ")
    assert lines.news(COPYING) == lines.news(COPYING | {"bytes_done": 241_000_000})
    assert lines.news(COPYING) != lines.news(COPYING | {"files_done": 4})


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "?"), (3, "<1 min"), (60, "1 min"), (61, "2 min")]
)
def test_minutes_left_are_told_when_they_are_known(seconds, text):
    assert lines.left(COPYING | {"seconds_left": seconds}) == text
    assert lines.left(SAFE) == "-"


@pytest.mark.parametrize(
    ("offset_ms", "text"),
    [
        (None, "-"),
        (-1900, "right"),
        (-5000, "-5 s"),
        (600_000, "+10 min"),
        (25_200_000, "+7 h 00 min"),
        (25_199_100, "+7 h 00 min"),
        (-3_599_900, "-1 h 00 min"),
        (89_400, "+89 s"),
        (86_400_000 * 2, "+2 days"),
        (-86_400_000 * 20_000, "-20000 days"),
    ],
)
def test_a_clocks_error_in_words(offset_ms, text):
    assert lines.clock(offset_ms) == text
