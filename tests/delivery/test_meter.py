"""Caps hold on the link while alarms flow; files keep to their windows; the count survives."""

import json
import time
from collections import Counter
from datetime import UTC, datetime

import jsonschema
import pytest

from agent.core import wire
from agent.core.clock import NS_PER_S, SimClock
from agent.core.model import Lane, Row
from agent.delivery.ahead import Ahead, packet_bytes
from agent.delivery.buckets import DEPTH_S
from agent.delivery.meter import DAY_KEY, Meter
from agent.delivery.outbox import Outbox
from agent.delivery.schedule import ScheduleConfig, WindowConfig
from tests.delivery.box import TOPICS, Box, noise
from tests.delivery.centre import Centre, Running, until
from tests.delivery.test_uplink import put_alarms, put_samples, uplink, waiting

NOON = int(datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()) * NS_PER_S
NIGHTLY = ScheduleConfig(
    "UTC", metered=True, small_kb=50, windows=(WindowConfig("22:00-06:00", 4000),)
)


def right():
    return {"source": "ntp", "error_ms": 5}


def wrong():
    return {"source": "none", "error_ms": -1}


def capped(kbit_s, **more):
    return ScheduleConfig(total_kbit_s=kbit_s, **more)


def row(lane, size_bytes):
    return Row(
        0, lane, "id", "t", b"x" * size_bytes, needs_receipt=False, is_retained=False, tries=0
    )


def metre(schedule, sim, state=right, store=None):
    meter = Meter(schedule, sim, store, state)
    meter.look()
    return meter


@pytest.fixture
def noon():
    return SimClock(NOON)


def run(meter, sim, seconds, *, rows=0, files=0, alarms_per_s=0):
    """Offer as much as is wanted every 10 ms; gives the bytes of rows, files and alarms."""
    sent = [0, 0, 0]
    for step in range(int(seconds * 100)):
        sim.advance(0.01)
        meter.look()
        if alarms_per_s and step % (100 // alarms_per_s) == 0:
            meter.sent_row(400, is_urgent=True)
            sent[2] += 400
        while rows and meter.may_row(rows):
            meter.sent_row(rows, is_urgent=False)
            sent[0] += rows
        size_bytes = min(files, meter.chunk_bytes)
        while files and meter.may_chunk(size_bytes):
            meter.sent_chunk(size_bytes)
            sent[1] += size_bytes
    return sent


def test_alone_each_gets_the_whole_cap_and_never_more(noon):
    for wanted in ({"rows": 300}, {"files": 65_536}):
        meter = metre(capped(400), noon)
        sent = sum(run(meter, noon, 20, **wanted))
        assert 0.9 * 20 * 50_000 <= sent <= 20 * 50_000 + 65_536


def test_rows_and_files_share_the_cap_half_and_half(noon):
    rows, files, _ = run(metre(capped(400), noon), noon, 20, rows=300, files=65_536)
    assert 0.9 * 20 * 50_000 <= rows + files <= 20 * 50_000 + 65_536
    assert rows == pytest.approx(files, rel=0.15)


def test_files_have_a_cap_of_their_own_below_the_total(noon):
    meter = metre(capped(800, files_kbit_s=160), noon)
    rows, files, _ = run(meter, noon, 20, rows=300, files=65_536)
    assert files == pytest.approx(20 * 20_000, rel=0.1)
    assert rows == pytest.approx(20 * 80_000, rel=0.1)


def test_alarms_never_ask_and_are_taken_off_what_the_others_get(noon):
    meter = metre(capped(64), noon)
    rows, _, alarms = run(meter, noon, 20, rows=300, alarms_per_s=10)
    assert alarms == 20 * 4000
    assert rows == pytest.approx(20 * 4000, rel=0.1)


def test_a_row_that_waited_a_minute_goes_in_spite_of_a_storm(noon):
    meter = metre(capped(8), noon)
    rows, _, alarms = run(meter, noon, 200, rows=300, alarms_per_s=20)
    assert alarms == 200 * 8000
    assert rows in (900, 1200)


@pytest.mark.parametrize(
    ("kbit_s", "live", "late"), [(64, 1500, 250), (64, 250, 1500), (8, 9000, 200)]
)
def test_under_a_cap_long_rows_and_short_ones_keep_their_shares(noon, kbit_s, live, late):
    """Short rows once took away whatever the long ones of another lane needed to save up."""
    meter, ahead, sent = metre(capped(kbit_s), noon), Ahead(), Counter()
    rows = [row(Lane.TELEMETRY, live)] * 9 + [row(Lane.BACKFILL, late)] * 90
    for _ in range(200 * 20):
        noon.advance(0.05)
        meter.look()
        ahead.refill(rows)
        while found := ahead.next(lambda item: meter.may_row(packet_bytes(item)), noon.mono_ns()):
            meter.sent_row(packet_bytes(found), is_urgent=False)
            sent[found.lane] += packet_bytes(found)
    assert sent.total() == pytest.approx(200 * kbit_s * 125, rel=0.06)
    assert sent[Lane.BACKFILL] / sent.total() == pytest.approx(0.05, abs=0.02)


def test_a_low_cap_means_short_chunks(noon):
    assert metre(ScheduleConfig(), noon).chunk_bytes > 1 << 20
    assert metre(capped(400), noon).chunk_bytes == 50_000 * DEPTH_S / 2
    assert metre(capped(400, files_kbit_s=80), noon).chunk_bytes == 1250
    assert metre(capped(8), noon).chunk_bytes == 1024
    assert metre(capped(64), noon).batch_bytes == 8192, "less would not be worth a batch"
    assert metre(capped(4000), noon).batch_bytes == 500_000 * DEPTH_S


def test_outside_its_window_a_large_file_waits_and_a_small_one_goes(noon):
    meter = metre(NIGHTLY, noon)
    assert not meter.lets_file(50_001)
    assert meter.lets_file(50_000)
    assert meter.below_bytes == 50_001
    assert meter.figures()["files"] == "wait"
    assert meter.figures()["until_utc_ms"] == (NOON // NS_PER_S + 10 * 3600) * 1000
    noon.advance(10 * 3600)
    meter.look()
    assert meter.lets_file(1 << 40)
    assert meter.figures()["total_kbit_s"] == 4000
    assert meter.figures()["window"] == "22:00-06:00"


def test_the_daily_amount_ends_in_the_middle_of_a_file_and_begins_anew_at_midnight(noon):
    meter = metre(ScheduleConfig("UTC", metered=True, files_mb_per_day=1), noon)
    while meter.lets_file(10_000_000):
        meter.sent_chunk(65_536)
    assert 1_000_000 <= meter.figures()["file_bytes_today"] < 1_065_536
    noon.advance(12 * 3600)
    meter.look()
    assert meter.lets_file(10_000_000)
    assert meter.figures()["bytes_today"] == 0


def test_what_goes_in_a_window_costs_nothing_of_the_daily_amount(noon):
    windows = (WindowConfig("11:00-13:00"),)
    schedule = ScheduleConfig("UTC", metered=True, files_mb_per_day=1, windows=windows)
    meter = metre(schedule, noon)
    meter.sent_chunk(5_000_000)
    noon.advance(2 * 3600)
    meter.look()
    assert meter.lets_file(10_000_000)


def test_the_days_count_survives_a_restart_and_damage(store, noon):
    schedule = ScheduleConfig("UTC", metered=True, files_mb_per_day=1)
    first = metre(schedule, noon, store=store)
    first.sent_chunk(1_200_000)
    first.sent_row(300, is_urgent=True)
    noon.advance(1)
    first.look()  # a hundredth of the amount: it is stored at once
    again = metre(schedule, noon, store=store)
    assert not again.lets_file(10_000_000)
    assert again.figures()["bytes_today"] == 1_200_300
    again.sent_row(700, is_urgent=False)
    again.save()
    assert metre(schedule, noon, store=store).figures()["bytes_today"] == 1_201_000
    store.write(lambda c: c.execute("UPDATE meta SET value = '7[' WHERE key = ?", (DAY_KEY,)))
    assert metre(schedule, noon, store=store).figures()["bytes_today"] == 0


def test_the_count_is_written_seldom(store, noon):
    meter = metre(ScheduleConfig(), noon, store=store)
    written = []
    for _ in range(600):
        meter.sent_row(1000, is_urgent=False)
        noon.advance(1)
        meter.look()
        with store.reading() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = ?", (DAY_KEY,)).fetchone()
        written.append(row and row[0])
    assert 9 <= len(set(written) - {None}) <= 12


def test_while_the_clock_was_never_right_no_day_begins_and_no_window_opens(noon):
    meter = metre(NIGHTLY, noon, wrong)
    meter.sent_row(500, is_urgent=True)
    noon.advance(36 * 3600)
    meter.look()
    figures = meter.figures()
    assert (figures["bytes_today"], figures["until_utc_ms"]) == (500, None)
    assert figures["files"] == "wait"
    assert "files wait, the clock is not right yet; " in meter.words()
    assert figures["total_kbit_s"] == 4000


def test_a_clock_that_was_right_counts_until_somebody_sets_it(noon):
    state = right()
    meter = metre(NIGHTLY, noon, lambda: state)
    state.update(wrong())
    noon.advance(10 * 3600)
    meter.look()
    assert meter.figures()["window"] == "22:00-06:00"
    noon.step_wall(-3600)
    noon.advance(1)
    meter.look()
    assert meter.figures()["window"] == ""
    assert meter.figures()["files"] == "wait"


def test_what_holds_is_said_in_words_and_fits_the_schema_of_beats(noon):
    meter = metre(NIGHTLY, noon)
    meter.sent_chunk(1_250_000)
    assert meter.words() == (
        "no cap, files wait until 2026-11-23 22:00 UTC; 1.2 MB today, 1.2 of files"
    )
    schema = json.loads(wire.schema_text("beat"))["properties"]["schedule"]
    jsonschema.validate(meter.figures(), schema)
    noon.advance(10 * 3600)
    meter.look()
    assert meter.words().startswith("all 4000 kbit/s, window 22:00-06:00 until 2026-11-24 06:00")
    jsonschema.validate(meter.figures(), schema)
    jsonschema.validate(Meter(ScheduleConfig(), noon).figures(), schema)


@pytest.mark.broker
def test_files_take_the_time_that_their_cap_gives_while_alarms_flow(embedded, store, tmp_path):
    box = Box(store, tmp_path)
    (fid,) = box.seal(clip_mp4=noise(200_000))
    meter = Meter(capped(400), box.clock, store, right)
    transfers = box.transfers(embedded.port, receipt_timeout_s=5)
    live = uplink(embedded.port, box.outbox, tmp_path)
    transfers.obey(meter)
    live.obey(meter)
    centre = Centre(embedded.port, TOPICS)
    begun_s = time.monotonic()
    with Running(transfers), Running(live):
        alarms = []
        while not box.all_receipted() and time.monotonic() - begun_s < 40:
            (message_id,) = put_alarms(box.outbox, 1)
            put_s = time.monotonic()
            assert until(lambda message_id=message_id: message_id in centre.ids())
            alarms.append(time.monotonic() - put_s)
            time.sleep(0.05)
        took_s = time.monotonic() - begun_s
    assert centre.content(fid) == box.contents[fid]
    assert 3.0 <= took_s <= 20, "200 kB at 50 kB/s are four seconds"
    assert max(size for _, size in centre.chunks[fid]) <= 6250
    assert sorted(alarms)[len(alarms) // 2] < 0.5
    assert meter.figures()["file_bytes_today"] >= 200_000
    centre.stop()


@pytest.mark.broker
def test_on_a_metered_link_snapshots_go_and_a_clip_waits_for_its_window(embedded, store, tmp_path):
    box = Box(store, tmp_path)
    state = SimClock(NOON)
    clip, snapshot = box.seal(clip_mp4=noise(300_000), snapshot_jpg=noise(20_000))
    meter = Meter(NIGHTLY, state, store, right)
    transfers = box.transfers(embedded.port)
    transfers.obey(meter)
    centre = Centre(embedded.port, TOPICS)
    with Running(transfers):
        assert until(lambda: box.state(snapshot) == "receipted")
        put_alarms(box.outbox, 1)
        for _ in range(10):
            state.advance(60)
            time.sleep(0.05)
        assert clip not in centre.offers
        assert transfers.status().open == 0
        state.advance(10 * 3600)
        until(lambda: state.advance(0.1) or centre.chunks[clip], 10)
        state.advance(8 * 3600)  # the window closes in the middle or after the end
        assert until(lambda: state.advance(0.1) or meter.figures()["files"] == "wait")
    centre.stop()


@pytest.mark.broker
def test_a_capped_backlog_leaves_room_for_alarms(embedded, store, clock, tmp_path):
    outbox = Outbox(store, TOPICS, clock, boot=1)
    put_samples(outbox, 200)
    live = uplink(embedded.port, outbox, tmp_path, receipt_timeout_s=10)
    live.obey(Meter(capped(64), clock, None, right))
    centre = Centre(embedded.port, TOPICS)
    with Running(live):
        assert until(lambda: len(centre.ids()) > 3)
        ids = put_alarms(outbox, 5)
        assert until(lambda: centre.ids() >= ids, 3)
        assert waiting(outbox) > 50, "200 rows of 250 bytes are six seconds at 8 kB/s"
    centre.stop()
