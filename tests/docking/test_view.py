"""What stands at a slot, from rows: the word, the colour, and whether the footage is safe."""

import json
import re
from pathlib import Path

import pytest

from agent.docking import tongues, view
from agent.docking.bench import Pace
from agent.docking.codes import MEANINGS, Code, meaning
from agent.docking.config import OfficersConfig
from agent.docking.states import COLOURS, State, Word
from agent.roles import dock as dock_role
from tests.docking.dockside import Camera, Dockside
from tests.docking.filled import Filled, dock_config


@pytest.fixture
def filled(tmp_path):
    made = Filled(tmp_path)
    yield made
    made.close()


def seen(filled, slot="1", called="", pace=None, **settings):
    live = view.Live(filled.clock, lambda name: called if name == slot else "", {slot: pace})
    (found,) = view.slots(filled.store, [slot], dock_config(**settings), live)
    return found


def test_every_state_has_a_word_and_a_colour():
    for state in State:
        chosen, _ = view.word(state, view.Facts(), dock_config())
        assert COLOURS[chosen]
        assert (chosen is Word.EMPTY) == (state is State.EMPTY)
    takeable = {
        state
        for state in State
        if view.word(state, view.Facts(), dock_config())[0] in (Word.READY, Word.TAKE)
    }
    assert takeable == {State.UPLOADING, State.RECEIPTED, State.READY, State.QUARANTINE}


@pytest.mark.parametrize("state", [State.COPYING, State.WIPING, State.CHECKED, State.SEALED])
def test_what_is_written_or_read_is_never_to_be_taken(state):
    facts = view.Facts(quarantine="D-11", is_called=True, battery_percent=100)
    assert view.word(state, facts, dock_config()) == (Word.BUSY, "")


def test_the_words_of_a_camera_whose_footage_is_safe():
    config = dock_config(min_battery_percent=80, min_free_percent=20)

    def said(**facts):
        return view.word(State.UPLOADING, view.Facts(**facts), config)

    assert said() == (Word.READY, "")
    assert said(battery_percent=79) == (Word.CHARGING, "charge")
    assert said(battery_percent=80) == (Word.READY, "")
    assert said(is_called=True) == (Word.TAKE, "")
    assert said(quarantine="D-11", is_called=True) == (Word.CALL, "")
    assert said(free_percent=5.0, files_to_wipe=3) == (Word.BUSY, "wipe")
    assert said(free_percent=5.0) == (Word.READY, ""), "waiting would not help it"


def test_an_empty_slot_and_one_that_was_never_written(filled):
    assert seen(filled).document() == {
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
        "notes": (),
        "session": "",
        "since_utc_ms": 0,
        "detail": "",
    }


def test_a_camera_that_is_copied(filled):
    filled.slot("1", "copying", "s")
    filled.docking("s", battery_percent=55, clock_offset_ms=7 * 3_600_000)
    filled.file("s", here="sealed", size=3_000_000)
    for _ in range(3):
        filled.file("s")
    pace = Pace()
    pace.begin([3_000_000, *[1_000_000] * 3], [], filled.clock.mono_ns())
    found = seen(filled, pace=pace)
    assert (found.word, found.colour, found.footage) == (Word.BUSY, "amber", "on_camera")
    assert (found.files_done, found.files_total) == (1, 4)
    assert found.seconds_left is None, "no rate was measured yet"
    assert (found.battery_percent, found.clock_offset_ms) == (55, 25_200_000)
    filled.clock.advance(10)
    pace.bytes_done = 4_000_000
    found = seen(filled, pace=pace)
    assert (found.bytes_done, found.bytes_total, found.seconds_left) == (4_000_000, 6_000_000, 5)
    json.dumps(found.document())


def test_where_the_footage_is(filled):
    filled.slot("1", "uploading", "s")
    filled.docking("s", is_sealed=True)
    assert seen(filled).footage == "none"
    first = filled.file("s", here="sealed")
    assert seen(filled).footage == "in_dock"
    filled.file("s", here="sealed", derived_from=first)
    filled.file("s", here="deleted", there="wiped")
    filled.file("s", here="no", there="gone")
    assert seen(filled).footage == "in_dock"
    filled.put("footage", **row(filled, first) | {"here": "receipted"})
    assert seen(filled).footage == "at_centre"
    filled.file("s")  # one that cannot be opened
    assert seen(filled).footage == "on_camera"


def row(filled, footage_id):
    with filled.store.reading() as connection:
        return dict(
            connection.execute("SELECT * FROM footage WHERE id = ?", (footage_id,)).fetchone()
        )


def test_before_all_is_listed_nothing_is_called_safe(filled):
    filled.slot("1", "inventory", "s")
    filled.docking("s")
    filled.file("s", here="sealed")
    assert seen(filled).footage == "on_camera", "known of an earlier docking, but is it all?"


def test_taken_too_early_and_a_technicians_code(filled):
    filled.slot("1", "pulled", "s", code="D-18")
    filled.docking("s")
    found = seen(filled)
    assert (found.word, found.code, found.footage) == (Word.CALL, "D-18", "on_camera")
    filled.slot("1", "uploading", "s")
    filled.docking("s", is_sealed=True, quarantine="D-11")
    filled.file("s", here="sealed")
    found = seen(filled)
    assert (found.word, found.code, found.footage) == (Word.CALL, "D-11", "in_dock")
    filled.slot("1", "copying", "s")
    found = seen(filled)
    assert (found.word, found.code) == (Word.BUSY, ""), "first all of it is brought to safety"


def test_officers_are_short_hidden_or_called(filled):
    filled.slot("1", "ready", "s")
    filled.docking("s", officer="Ann-Kathrin Oberholzer\x1b[2J", is_sealed=True)
    found = seen(filled)
    assert found.officer == "Ann-Kathrin Ober…"[:15] + "…"
    assert seen(filled, called="B. Omarov").officer == "B. Omarov"
    assert seen(filled, called="B. Omarov").word is Word.TAKE
    hidden = {"officers": type(dock_config().officers)(names_hidden=True)}
    assert seen(filled, called="B. Omarov", **hidden).officer == ""


def test_a_badge_held_twice_calls_to_the_same_camera(tmp_path):
    side = Dockside(tmp_path, slots=("1", "2"), officers=OfficersConfig("pool"))
    Camera(tmp_path, "BC0001").plug(side.slots["1"])
    side.rest()
    _, bench = dock_role._slots(side.kit, lambda: {"source": "ntp", "error_ms": 1})
    live = view.Live(side.clock, bench.officers.called)
    for badge in ("0421", "0421", "0388"):
        dock_role._badge(side.kit, bench, badge)
        called, empty = view.slots(side.store, ("1", "2"), side.config.dock, live)
        assert (called.word, called.officer, empty.word) == (Word.TAKE, "0421", Word.EMPTY)
    side.clock.advance(61)
    called, _ = view.slots(side.store, ("1", "2"), side.config.dock, live)
    assert called.word is Word.READY
    side.close()


def test_a_cameras_own_text_cannot_command_a_terminal(filled):
    filled.slot("1", "unknown", "s", code="D-01", detail="\x1b]0;x\x07 \u202egpj")
    filled.docking("s", camera="", officer="\x1b[31mX")
    found = seen(filled)
    assert (found.word, found.code, found.footage) == (Word.CALL, "D-01", "")
    assert found.officer == "\\u001b[31mX"
    assert found.detail.isprintable()


def test_what_a_technician_should_see_to_some_time(filled):
    filled.slot("1", "ready", "s")
    filled.docking("s", is_sealed=True, firmware="1.0", clock_offset_ms=-2 * 86_400_000)
    found = seen(filled, firmware=("1.2",))
    assert found.word is Word.READY
    assert found.notes == ["D-24", "D-19"]
    filled.file("s", here="sealed", flags='["other"]')
    refused = filled.file("s", here="sealed")
    filled.put(
        "transfer",
        fid="f" * 32,
        clip_id=refused,
        name="recording.mp4",
        path="x",
        size_bytes=1,
        sha256="0" * 64,
        leaf_root="0" * 64,
        manifest="{}",
        event_ids="[]",
        state="refused",
        is_final=1,
        created_utc_ns=1,
    )
    found = seen(filled)
    assert (found.word, found.notes) == (Word.READY, ["D-24", "D-22", "D-21"])


def test_every_code_has_its_words_and_every_word_its_tongues():
    assert set(MEANINGS) == set(Code)
    assert len({text.sentence for text in MEANINGS.values()}) == len(Code)
    assert meaning("D-99").sentence
    for language in tongues.LANGUAGES:
        words = [tongues.word(language, word) for word in Word]
        assert all(words)
        assert len(set(words)) == len(words), "no two words are the same"
        assert all(tongues.text(language, key) for key in tongues.TEXTS)


def test_the_page_has_every_code_every_word_and_every_key(filled):
    page = (Path(__file__).parents[2] / "docs" / "DOCK.md").read_text()
    rows = re.findall(r"^\| `(D-\d\d)` \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    assert rows == [(str(code), MEANINGS[code].sentence, MEANINGS[code].cure) for code in Code]
    for said in tongues.WORDS.values():
        assert f"| {' | '.join(said)} |" in page
    for key in seen(filled).document():
        assert f"`{key}`" in page
