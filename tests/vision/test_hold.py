"""Holds and pins: placed and released with a name and a reason, which the custody log keeps."""

import json

import pytest

from agent.core.clock import NS_PER_S, SimClock
from agent.core.errors import MalformedMessage
from agent.core.store import Store
from agent.evidence import custody
from agent.vision.footage import Span
from agent.vision.hold import Keepsakes, Word, listed
from tests.vision.recording import rows

NOW_NS = 1_700_000_000 * NS_PER_S
WORD = Word("police request 7", "A. Weber")
SPAN = Span("gate", NOW_NS - 60 * NS_PER_S, NOW_NS - 30 * NS_PER_S)


@pytest.fixture
def keep(store: Store) -> Keepsakes:
    clock = SimClock(NOW_NS)

    def note(connection, kind, subject, detail) -> object:
        return custody.append(connection, clock, kind, subject, detail)

    return Keepsakes(store, clock, note, ("gate", "yard"))


def add_clip(store: Store, clip_id: str, state: str = "sealed", camera: str = "gate") -> None:
    def change(connection) -> None:
        connection.execute(
            "INSERT INTO event VALUES (?, ?, 'k', 'r', 'closed', 0, 1, '{}')",
            (f"e-{clip_id}", camera),
        )
        connection.execute(
            "INSERT INTO clip (id, event_id, camera, start_utc_ns, end_utc_ns, state)"
            " VALUES (?, ?, ?, 0, 1, ?)",
            (clip_id, f"e-{clip_id}", camera, state),
        )

    store.write(change)


def log_of(store: Store) -> list[tuple[str, str, dict]]:
    found = rows(store, "SELECT kind, subject, detail FROM custody ORDER BY seq")
    return [(row["kind"], row["subject"], json.loads(row["detail"])) for row in found]


def lists(store: Store) -> dict:
    with store.reading() as connection:
        return listed(connection)


def test_who_and_why_stand_in_the_list_and_in_the_log(store: Store, keep: Keepsakes) -> None:
    hold_id = keep.place(SPAN, WORD)
    (found,) = lists(store)["holds"]
    assert (found["id"], found["reason"], found["placed_by"]) == (hold_id, WORD.reason, WORD.by)
    keep.release(hold_id, Word("handed over", "B. Kern"))
    assert lists(store)["holds"] == []
    detail = {"camera": "gate", "start_utc_ms": 1_699_999_940_000, "end_utc_ms": 1_699_999_970_000}
    assert log_of(store) == [
        ("hold.placed", hold_id, {**detail, "reason": WORD.reason, "by": WORD.by}),
        ("hold.released", hold_id, {"reason": "handed over", "by": "B. Kern"}),
    ]


def test_a_hold_may_go_on_after_now(keep: Keepsakes) -> None:
    assert keep.place(Span("gate", NOW_NS - NS_PER_S, NOW_NS + 3600 * NS_PER_S), WORD)


@pytest.mark.parametrize(
    ("span", "word", "says"),
    [
        (Span("gat", 1, 2), WORD, "camera 'gat': unknown; allowed: gate, yard"),
        (Span("gate", NOW_NS, NOW_NS - 1), WORD, "ends before it begins"),
        (Span("gate", NOW_NS - 5, NOW_NS - 5), WORD, "ends before it begins"),
        (Span("gate", NOW_NS + 3600 * NS_PER_S, NOW_NS + 7200 * NS_PER_S), WORD, "not yet begun"),
        (Span("gate", -1, NOW_NS), WORD, "allowed: 0 to"),
        (Span("gate", 0, 1 << 80), WORD, "allowed: 0 to"),
        (SPAN, Word("", "A. Weber"), "reason is missing"),
        (SPAN, Word(" \t", "A. Weber"), "reason is missing"),
        (SPAN, Word("case 7", ""), "by is missing"),
        (SPAN, Word("x" * 257, "A. Weber"), "reason: 257 letters; allowed: 1 to 256"),
        (SPAN, Word("a\nb", "A. Weber"), "on one line"),
    ],
)
def test_a_wrong_hold_is_refused_in_words(
    store: Store, keep: Keepsakes, span: Span, word: Word, says: str
) -> None:
    with pytest.raises(MalformedMessage, match=says):
        keep.place(span, word)
    assert lists(store)["holds"] == []
    assert log_of(store) == []


def test_an_unknown_hold_is_told_with_those_there_are(store: Store, keep: Keepsakes) -> None:
    with pytest.raises(MalformedMessage, match="there are: none"):
        keep.release("nonsense", WORD)
    hold_id = keep.place(SPAN, WORD)
    with pytest.raises(MalformedMessage, match=f"there are: {hold_id}"):
        keep.release("nonsense", WORD)
    with pytest.raises(MalformedMessage, match="by is missing"):
        keep.release(hold_id, Word("done", ""))
    assert len(lists(store)["holds"]) == 1


def test_a_camera_that_was_recorded_once_may_be_held(store: Store, keep: Keepsakes) -> None:
    add_clip(store, "c1", camera="attic")
    assert keep.place(Span("attic", 0, NOW_NS), WORD)


def test_a_pin_is_placed_once_and_taken_off(store: Store, keep: Keepsakes) -> None:
    add_clip(store, "c1")
    keep.pin("c1", WORD)
    assert [row["clip_id"] for row in lists(store)["pins"]] == ["c1"]
    with pytest.raises(MalformedMessage, match="is pinned already"):
        keep.pin("c1", WORD)
    keep.unpin("c1", WORD)
    with pytest.raises(MalformedMessage, match="is not pinned"):
        keep.unpin("c1", WORD)
    assert [kind for kind, _, _ in log_of(store)] == ["clip.pinned", "clip.unpinned"]


@pytest.mark.parametrize("state", ["empty", "refused", "deleted"])
def test_a_clip_without_files_cannot_be_pinned(store: Store, keep: Keepsakes, state: str) -> None:
    add_clip(store, "c1", state)
    with pytest.raises(MalformedMessage, match=f"clip c1: {state}; allowed: wanted, sealed"):
        keep.pin("c1", WORD)


def test_an_unknown_clip_cannot_be_pinned(keep: Keepsakes) -> None:
    with pytest.raises(MalformedMessage, match="clip 'nonsense': there is none"):
        keep.pin("nonsense", WORD)


def test_a_hold_of_a_known_id_is_placed_once(store: Store, keep: Keepsakes) -> None:
    for _ in range(2):  # a command that a kill cut short before its answer is done again
        assert keep.place(SPAN, WORD, "f" * 32) == "f" * 32
    assert len(lists(store)["holds"]) == 1
    assert [kind for kind, _, _ in log_of(store)] == ["hold.placed"]


def test_a_hold_of_the_centre_is_let_go_by_the_centre_alone(store: Store, keep: Keepsakes) -> None:
    hold_id = keep.place(SPAN, Word("case 7", "A. Weber", "command 77"))
    for via in ("", "user 1000"):
        with pytest.raises(MalformedMessage, match="the centre's; allowed: the centre alone"):
            keep.release(hold_id, Word("no more room", "B. Kern", via))
    assert len(lists(store)["holds"]) == 1
    keep.release(hold_id, Word("closed", "A. Weber", "command 78"))
    ours = keep.place(SPAN, WORD)
    keep.release(ours, Word("closed", "A. Weber", "command 79"))
    assert lists(store)["holds"] == []


def test_what_a_damaged_database_lost_is_placed_again_by_the_log(
    store: Store, keep: Keepsakes
) -> None:
    for number in range(4):
        add_clip(store, f"c{number}", "receipted")
        keep.pin(f"c{number}", WORD)
    keep.unpin("c1", WORD)
    held = keep.place(SPAN, Word("case 7", "A. Weber", "command 77"))
    gone, kept = keep.place(SPAN, WORD), keep.place(SPAN, WORD)
    keep.release(gone, WORD)
    assert keep.restore() == 0
    before = lists(store)

    def lose(connection) -> None:
        connection.execute("DELETE FROM hold WHERE id = ?", (held,))
        connection.execute("DELETE FROM pin WHERE clip_id IN ('c0', 'c2')")
        connection.execute("DELETE FROM clip WHERE id = 'c2'")

    store.write(lose)
    assert keep.restore() == 2
    after = lists(store)
    assert {row["id"] for row in after["holds"]} == {held, kept}
    assert {row["clip_id"] for row in after["pins"]} == {"c0", "c3"}
    (one,) = [row for row in after["holds"] if row["id"] == held]
    (was,) = [row for row in before["holds"] if row["id"] == held]
    assert one["start_utc_ns"] <= was["start_utc_ns"]
    assert one["end_utc_ns"] >= was["end_utc_ns"]
    assert (one["placed_by"], one["via"]) == ("A. Weber", "command 77")
    assert keep.restore() == 0
    keep.release(held, Word("closed", "A. Weber", "command 78"))
    assert keep.restore() == 0


def test_an_entry_that_cannot_be_read_stops_nothing(store: Store, keep: Keepsakes) -> None:
    held = keep.place(SPAN, WORD)
    spoil = "INSERT INTO custody VALUES (99, 1, 'hold.placed', 'h', 'rubbish', '', '')"
    store.write(lambda connection: connection.execute(spoil).rowcount)
    store.write(lambda connection: connection.execute("DELETE FROM hold").rowcount)
    assert keep.restore() == 1
    assert [row["id"] for row in lists(store)["holds"]] == [held]
