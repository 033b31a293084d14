"""Lines of the analysis process become rows: event, message and wanted clip together."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from agent.core.clock import NS_PER_S, SimClock
from agent.core.errors import OutboxFull
from agent.core.model import Event, EventState
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.core.wire import Topics
from agent.delivery.outbox import Outbox
from agent.vision import lines
from agent.vision.intake import Admission, Intake

START_NS = 1_790_000_000 * NS_PER_S
EVENT = Event(
    event_id="0" * 31 + "1",
    camera="gate",
    kind="zone_enter",
    rule="in",
    state=EventState.OPEN,
    start_utc_ns=START_NS,
    end_utc_ns=None,
    label="person",
    score=0.7,
    track_ids=(3,),
    measured={"dwell_s": 1.5},
    model="ssd@0",
    pre_s=2.0,
    post_s=3.0,
)
CLOSED = replace(
    EVENT,
    state=EventState.CLOSED,
    end_utc_ns=START_NS + 4 * NS_PER_S,
    snapshot=Path("spool/x.jpg"),
    path=((1_790_000_000_000, 0.5, 0.6),),
    reason="left",
)


@pytest.fixture
def intake(store: Store) -> Intake:
    clock = SimClock()
    return Intake(store, Outbox(store, Topics("yard", "cam-1"), clock, boot=1), clock)


def rows(store: Store, query: str) -> list[dict[str, object]]:
    with store.reading() as connection:
        return [dict(row) for row in connection.execute(query)]


def test_open_event_is_stored_with_its_message(store: Store, intake: Intake) -> None:
    intake.line(lines.to_line(EVENT))
    assert [row["state"] for row in rows(store, "SELECT state FROM event")] == ["open"]
    (message,) = rows(store, "SELECT topic, payload, needs_receipt, lane FROM outbox")
    assert message["topic"] == "outpost/1/yard/cam-1/event/zone_enter"
    assert message["needs_receipt"] == 1
    assert message["lane"] == "alarm"
    assert json.loads(message["payload"])["body"]["event_id"] == EVENT.event_id
    assert rows(store, "SELECT * FROM clip") == []


def test_closed_event_wants_its_clip_with_both_rolls(store: Store, intake: Intake) -> None:
    intake.line(lines.to_line(EVENT))
    intake.line(lines.to_line(CLOSED))
    (clip,) = rows(store, "SELECT * FROM clip")
    assert clip["state"] == "wanted"
    assert clip["event_id"] == EVENT.event_id
    assert clip["start_utc_ns"] == START_NS - 2 * NS_PER_S
    assert clip["end_utc_ns"] == START_NS + 7 * NS_PER_S
    assert clip["snapshot"] == "spool/x.jpg"
    assert json.loads(clip["track_path"]) == [[1_790_000_000_000, 0.5, 0.6]]


def test_a_lasting_event_gets_its_clip_while_it_is_open_and_no_other(
    store: Store, intake: Intake
) -> None:
    due = replace(EVENT, clip_until_utc_ns=START_NS + 60 * NS_PER_S)
    for event in (EVENT, due, due):
        intake.line(lines.to_line(event))
    (clip,) = rows(store, "SELECT start_utc_ns, end_utc_ns FROM clip")
    assert clip == {
        "start_utc_ns": START_NS - 2 * NS_PER_S,
        "end_utc_ns": START_NS + 63 * NS_PER_S,
    }
    assert len(rows(store, "SELECT 1 FROM outbox")) == 2
    intake.close_left_open("agent restarted")  # its body does not say that there was a clip
    assert len(rows(store, "SELECT 1 FROM clip")) == 1
    assert rows(store, "SELECT state FROM event") == [{"state": "closed"}]


def test_a_report_is_stored_and_sent_without_a_clip(store: Store, intake: Intake) -> None:
    intake.line(lines.to_line(replace(CLOSED, has_clip=False)))
    assert rows(store, "SELECT state FROM event") == [{"state": "closed"}]
    assert rows(store, "SELECT 1 FROM clip") == []


def test_repeated_lines_change_nothing(store: Store, intake: Intake) -> None:
    for _ in range(3):
        intake.line(lines.to_line(EVENT))
    for _ in range(3):
        intake.line(lines.to_line(CLOSED))
    intake.line(lines.to_line(EVENT))
    assert [row["state"] for row in rows(store, "SELECT state FROM event")] == ["closed"]
    assert len(rows(store, "SELECT id FROM outbox")) == 2
    assert len(rows(store, "SELECT id FROM clip")) == 1


def test_event_left_open_is_closed_when_the_camera_was_last_recorded(
    store: Store, intake: Intake
) -> None:
    intake.line(lines.to_line(EVENT))
    store.write(
        lambda connection: (
            connection.execute(
                "INSERT INTO segment (camera, run, path, state, start_utc_ns, end_utc_ns,"
                " first_dts, last_dts, time_base_num, time_base_den, codec, width_px, height_px,"
                " extradata)"
                " VALUES ('gate', 'r', 'p', 'closed', ?, ?, 0, 1, 1, 90000, 'h264', 4, 4, x'00')",
                (START_NS - NS_PER_S, START_NS + 9 * NS_PER_S),
            ).rowcount
        )
    )
    assert intake.close_left_open("agent restarted") == 1
    assert intake.close_left_open("agent restarted") == 0
    (event,) = rows(store, "SELECT * FROM event")
    assert event["state"] == "closed"
    assert event["end_utc_ns"] == START_NS + 9 * NS_PER_S
    assert lines.from_line(str(event["body"])).reason == "agent restarted"
    (clip,) = rows(store, "SELECT * FROM clip")
    assert clip["end_utc_ns"] == START_NS + 12 * NS_PER_S


def test_event_left_open_without_footage_ends_where_it_began(store: Store, intake: Intake) -> None:
    intake.line(lines.to_line(EVENT))
    intake.close_left_open("agent restarted")
    (event,) = rows(store, "SELECT * FROM event")
    assert event["end_utc_ns"] == START_NS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rubbish",
        "[]",
        "7",
        "{}",
        '{"type": "tune"}',
        '{"type": "event"}',
        '{"type": "event", "event": {"event_id": "short"}}',
        lines.to_line(EVENT)[:-20],
        lines.to_line(replace(EVENT, snapshot=Path("../../etc/passwd"))),
        lines.to_line(replace(EVENT, camera="No Such Name")),
    ],
)
def test_bad_lines_are_refused_and_the_next_one_is_taken(
    store: Store, intake: Intake, text: str
) -> None:
    intake.line(text)
    assert rows(store, "SELECT id FROM event") == []
    intake.line(lines.to_line(EVENT))
    assert len(rows(store, "SELECT id FROM event")) == 1


def test_camera_and_stats_lines_are_remembered(intake: Intake) -> None:
    assert intake.health("gate").state == "starting"
    intake.line(lines.line("camera", camera="gate", state="streaming", detail=""))
    intake.line(lines.line("stats", camera="gate", frames=12, inferences=5, lag_ms=80))
    health = intake.health("gate")
    assert (health.state, health.frames, health.inferences, health.lag_ms) == (
        "streaming",
        12,
        5,
        80,
    )
    assert health.blind == ()
    blind = {"kerb": {"reason": "dark", "total_s": 3.5}}
    intake.line(lines.line("stats", camera="gate", frames=13, lag_ms=80, blind=blind))
    assert intake.health("gate").blind == ({"rule": "kerb", "reason": "dark", "total_s": 3.5},)


def test_detector_state_and_model_are_remembered(intake: Intake) -> None:
    intake.line(lines.line("degraded", reason="model cut short"))
    assert (intake.detector.state, intake.detector.detail) == ("degraded", "model cut short")
    intake.line(lines.line("ready", model="ssd@1"))
    assert (intake.detector.state, intake.detector.detail) == ("ready", "")
    assert intake.model == "ssd@1"


def test_a_new_analysis_closes_what_the_old_one_left_open(store: Store, intake: Intake) -> None:
    intake.line(lines.to_line(EVENT))
    intake.line(lines.line("ready", model="ssd@1"))
    (event,) = rows(store, "SELECT * FROM event")
    assert lines.from_line(str(event["body"])).reason == "analysis restarted"


def test_two_threads_may_ask_for_health_while_lines_come(intake: Intake) -> None:
    stop = threading.Event()
    seen: list[str] = []

    def ask() -> None:
        while not stop.is_set():
            seen.append(intake.health("gate").state)

    asker = threading.Thread(target=ask)
    asker.start()
    for number in range(200):
        intake.line(lines.line("stats", camera="gate", frames=number, inferences=0, lag_ms=None))
    stop.set()
    asker.join()
    assert intake.health("gate").frames == 199
    assert set(seen) == {"starting"}


def test_events_wait_for_a_full_disk_and_are_stored_in_order(tmp_path: Path) -> None:
    clock = SimClock()
    small = Store(tmp_path / "small.db", DEVICE_MIGRATIONS, clock, max_bytes=64 * 4096)
    small.open()
    outbox = Outbox(small, Topics("yard", "cam-1"), clock, boot=1)
    intake = Intake(small, outbox, clock)
    intake.line(lines.to_line(replace(EVENT, event_id="a" * 32)))
    filler = b"x" * 3000

    def fill() -> None:
        for number in range(1000):
            small.write(
                lambda connection, key=f"k{number}": (
                    connection.execute("INSERT INTO meta VALUES (?, ?)", (key, filler)).rowcount
                )
            )

    with pytest.raises(OutboxFull):
        fill()
    for number in range(20):
        intake.line(lines.to_line(replace(EVENT, event_id=f"{number:032x}")))
        intake.line(lines.to_line(replace(CLOSED, event_id=f"{number:032x}")))
    intake.line(lines.line("ready", model="ssd@1"))
    assert len(rows(small, "SELECT id FROM event")) < 21
    small.write(lambda connection: connection.execute("DELETE FROM meta").rowcount)
    intake.line(lines.line("stats", camera="gate", frames=1, inferences=0, lag_ms=None))
    states = rows(small, "SELECT state, count(*) AS events FROM event GROUP BY state")
    assert states == [{"state": "closed", "events": 21}]
    assert len(rows(small, "SELECT id FROM clip")) == 21
    small.close()


@pytest.mark.parametrize(
    ("start_ns", "end_ns", "span"),
    [
        (1 * NS_PER_S, 2 * NS_PER_S, (0, 5 * NS_PER_S)),  # no clip begins before 1970
        # Set from 1970 to now while the event went on: not half a century of recordings.
        (60 * NS_PER_S, START_NS, (58 * NS_PER_S, 7263 * NS_PER_S)),
        # Set back: what was before the event is not of it.
        (START_NS, START_NS - 3600 * NS_PER_S, (START_NS - 2 * NS_PER_S, START_NS + 3 * NS_PER_S)),
    ],
)
def test_a_clip_stays_in_bounds_when_the_clock_is_set_while_its_event_goes_on(
    store: Store, intake: Intake, start_ns: int, end_ns: int, span: tuple[int, int]
) -> None:
    intake.line(lines.to_line(replace(CLOSED, start_utc_ns=start_ns, end_utc_ns=end_ns)))
    (clip,) = rows(store, "SELECT * FROM clip")
    assert (clip["start_utc_ns"], clip["end_utc_ns"]) == span


def test_a_clip_without_room_is_refused_visibly_and_its_event_goes_on(store: Store) -> None:
    clock = SimClock()
    logged: list[tuple[str, dict]] = []
    admission = Admission(
        lambda event: "no room: 7 bytes left" if event.severity == "info" else "",
        lambda _connection, kind, _subject, detail: logged.append((kind, dict(detail))),
    )
    outbox = Outbox(store, Topics("yard", "cam-1"), clock, boot=1)
    intake = Intake(store, outbox, clock, admission)
    info = replace(CLOSED, severity="info")
    intake.line(lines.to_line(info))
    intake.line(lines.to_line(replace(CLOSED, event_id="2" * 32)))
    refused = {row["event_id"]: row["refused"] for row in rows(store, "SELECT * FROM clip")}
    assert refused == {info.event_id: "no room: 7 bytes left", "2" * 32: ""}
    bodies = [json.loads(row["payload"])["body"] for row in rows(store, "SELECT * FROM outbox")]
    assert [body.get("clip_refused") for body in bodies] == ["no room: 7 bytes left", None]
    assert logged == [
        (
            "clip.refused",
            {
                "event_id": info.event_id,
                "kind": "zone_enter",
                "severity": "info",
                "reason": "no room: 7 bytes left",
            },
        )
    ]
