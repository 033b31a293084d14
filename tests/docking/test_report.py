"""How a dock stands, for a person and for the centre."""

import csv
import io
import json

import pytest

from agent.core import wire
from agent.docking import report, reportlines
from agent.docking.config import FleetCamera, OfficersConfig
from agent.docking.reporter import KIND, Reporter
from tests.docking.filled import HOUR_NS, Filled, dock_config


@pytest.fixture
def filled(tmp_path):
    made = Filled(tmp_path)
    yield made
    made.close()


def told(filled, hours=None, free=500, good=None, **settings):
    now = report.Now(filled.clock.utc_ns(), free, 1000, good)
    with filled.store.reading() as connection:
        found = report.report(connection, dock_config(**settings), now, hours)
    wire.check("dock_report", report.cut(found))
    return found


FLEET = (FleetCamera("BC0001", "A. Weber"), FleetCamera("BC0002", "B. Omarov"))


def test_an_empty_dock_has_nothing_to_say(filled):
    found = told(filled)
    assert [found[name] for name in report.LISTS] == [[]] * len(report.LISTS)
    assert (found["notes"], found["last_receipt_utc_ms"], found["left_out"]) == ([], None, 0)


def test_cameras_and_officers_that_have_not_docked(filled):
    filled.docking("a" * 32, "bc0001", "A. Weber", ago_h=40, ended_utc_ns=at(filled, -30))
    filled.docking("b" * 32, "bc0009", "C. Stranger", ago_h=50, ended_utc_ns=at(filled, -49))
    found = told(filled, fleet=FLEET)
    assert found["not_docked"] == [
        {"camera": "bc0002", "officer": "B. Omarov", "last_utc_ms": None},
        {"camera": "bc0009", "officer": "C. Stranger", "last_utc_ms": at(filled, -49) // 10**6},
        {"camera": "bc0001", "officer": "A. Weber", "last_utc_ms": at(filled, -30) // 10**6},
    ]
    assert [row["officer"] for row in found["officers_not_docked"]] == [
        "B. Omarov",
        "C. Stranger",
        "A. Weber",
    ]
    assert [row["camera"] for row in told(filled, 36, fleet=FLEET)["not_docked"]] == [
        "bc0002",
        "bc0009",
    ]
    filled.docking("c" * 32, "bc0001", "A. Weber", ago_h=29)  # hangs there still
    assert "bc0001" not in {row["camera"] for row in told(filled)["not_docked"]}


def at(filled, hours):
    return filled.clock.utc_ns() + round(hours * HOUR_NS)


def test_strangers_are_forgotten_and_made_up_names_are_no_cameras(filled):
    filled.docking("a" * 32, "bc0009", "X", ago_h=800, ended_utc_ns=at(filled, -799))
    other = {"quarantine": "D-06", "ended_utc_ns": at(filled, -40)}
    filled.docking("b" * 32, "unknown.bbbbbbbb", "", ago_h=41, **other)
    found = told(filled)
    assert found["not_docked"] == []
    assert found["officers_not_docked"] == []
    assert [row["code"] for row in found["quarantined"]] == ["D-06"]


def test_in_a_pool_the_badge_tells_who_has_a_camera(filled):
    filled.docking("a" * 32, "bc0001", "A. Weber", ago_h=60, ended_utc_ns=at(filled, -50))
    filled.put(
        "dock_assignment",
        camera="bc0001",
        officer="C. Tau",
        source="badge",
        since_utc_ns=at(filled, -50),
    )
    found = told(filled, fleet=FLEET, officers=OfficersConfig("pool"))
    assert [(row["camera"], row["officer"]) for row in found["not_docked"]] == [
        ("bc0002", ""),
        ("bc0001", "C. Tau"),
    ]
    assert {row["officer"] for row in found["officers_not_docked"]} == {"A. Weber", "C. Tau"}


def test_clocks_that_were_off(filled):
    filled.docking("a" * 32, "bc0001", ago_h=5, clock_offset_ms=25_200_000)
    filled.docking("b" * 32, "bc0002", ago_h=5, clock_offset_ms=-25_200_000)
    filled.docking("c" * 32, "bc0002", ago_h=1, clock_offset_ms=900)
    filled.docking("d" * 32, "bc0003", ago_h=1)
    (row,) = told(filled)["clocks_off"]
    assert (row["camera"], row["offset_ms"]) == ("bc0001", 25_200_000)
    assert len(told(filled, clock_off_h=8)["clocks_off"]) == 0


def test_what_waits_for_copying_for_the_centre_and_for_its_wipe(filled):
    filled.docking("a" * 32, "bc0001", "A. Weber", ago_h=30)
    for here, there in (
        ("no", "yes"),
        ("no", "gone"),
        ("sealed", "yes"),
        ("sealed", "gone"),
        ("receipted", "yes"),
        ("deleted", "wiping"),
        ("receipted", "wiped"),
    ):
        filled.file("a" * 32, here, there, size=1000)
    filled.file("a" * 32, "sealed", size=5, derived_from="x")
    found = told(filled)
    assert found["waiting"] == [
        {
            "camera": "bc0001",
            "officer": "A. Weber",
            "on_camera_files": 1,
            "on_camera_bytes": 1000,
            "for_receipt_files": 2,
            "for_receipt_bytes": 2000,
            "for_wipe_files": 2,
            "for_wipe_bytes": 2000,
            "oldest_utc_ms": at(filled, -30) // 10**6,
        }
    ]
    assert found["notes"] == ["D-27"], "nothing signed for a day"
    filled.file("a" * 32, "receipted", "wiped", receipted_utc_ns=at(filled, -1))
    assert told(filled)["notes"] == []
    assert told(filled, free=19, good=False)["notes"] == ["D-12", "D-25"]


def test_what_is_set_aside_and_what_is_not_wiped(filled):
    filled.docking("a" * 32, "bc0001", ago_h=2, quarantine="D-11")
    filled.docking("b" * 32, "bc0001", ago_h=900, quarantine="D-15")
    filled.file("a" * 32, "receipted", kept_because="receipt: forged\x1b[2J")
    filled.file("a" * 32, "receipted", kept_because="receipt: forged\x1b[2J")
    filled.file("a" * 32, "receipted", "wiped", kept_because="")
    found = told(filled)
    assert [(row["session"], row["code"]) for row in found["quarantined"]] == [("a" * 32, "D-11")]
    assert found["not_wiped"] == [
        {"camera": "bc0001", "reason": "receipt: forged\\u001b[2J", "files": 2}
    ]


def test_a_message_is_bounded_and_says_what_it_left_out(filled):
    for number in range(620):
        filled.docking(f"{number:032x}", f"bc{number:04}", "Я" * 300, 60, ended_utc_ns=1)
    found = told(filled, fleet=tuple(FleetCamera(f"BC{n:04}") for n in range(620)))
    assert len(found["not_docked"]) == 620
    short = report.cut(found)
    assert (len(short["not_docked"]), short["left_out"]) == (500, 120)
    assert len(wire.encode(short)) < wire.MAX_JSON_BYTES


def test_names_can_be_left_out(filled):
    filled.docking("a" * 32, "bc0001", "A. Weber", ago_h=60, ended_utc_ns=at(filled, -50))
    filled.file("a" * 32, "sealed")
    found = report.hide(told(filled, fleet=FLEET))
    assert "Weber" not in json.dumps(found)
    assert len(found["not_docked"]) == 2


def test_a_spreadsheet_computes_nothing(filled):
    filled.docking("a" * 32, "bc0001", '=HYPERLINK("x")', ago_h=60, ended_utc_ns=at(filled, -50))
    filled.docking("b" * 32, "bc0002", "-1", ago_h=1, clock_offset_ms=-7_200_000, quarantine="D-11")
    filled.file("a" * 32, "sealed", size=1_500_000)
    filled.file("a" * 32, "receipted", kept_because="it is held")
    rows = list(csv.DictReader(io.StringIO(reportlines.table(told(filled)), newline="")))
    assert {row["about"] for row in rows} == set(report.LISTS)
    assert not [cell for row in rows for cell in row.values() if cell.startswith(tuple("=+-@"))]
    waiting = next(row for row in rows if row["what"] == "for the centre")
    assert (waiting["files"], waiting["mb"], waiting["camera"]) == ("1", "1.5", "bc0001")


def test_the_text_has_a_part_for_everything(filled):
    filled.docking("a" * 32, "bc0001", ago_h=2, quarantine="D-11", clock_offset_ms=-7_200_000)
    filled.file("a" * 32, "sealed", size=1_500_000)
    parts = dict(reportlines.sections(told(filled)))
    assert parts["Clocks that were off"][0]["clock"] == "-2 h 00 min"
    assert parts["Footage that waits"][0]["for_the_centre"] == "1 (1.5 MB)"
    assert parts["Dockings of which nothing is wiped"][0]["why"].startswith("D-11: Parts of")
    assert parts["Cameras not docked for 24 h"] == []
    assert parts["The dock"][0]["free"] == "50 %"
    assert reportlines.notes({"notes": ["D-27"]})[0].startswith("D-27: The centre")


def test_the_centre_is_told_once_a_day_over_restarts_and_clock_jumps(filled):
    messages = []

    def reporter():
        return Reporter(
            dock_config(),
            filled.state_dir,
            filled.store,
            filled.clock,
            lambda: True,
            lambda _, message: messages.append(message),
        )

    assert reporter().look()
    assert messages[0].kind == KIND
    assert messages[0].needs_receipt
    wire.check("dock_report", dict(messages[0].body))
    assert not reporter().look()
    filled.clock.advance(23 * 3600)
    assert not reporter().look()
    filled.clock.advance(3601)
    assert reporter().look()
    filled.put("meta", key="dock_report_utc_ns", value=str(at(filled, 1000)))
    assert reporter().look(), "told by a clock that was wrong"
    assert len(messages) == 3
