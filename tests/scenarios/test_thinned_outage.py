"""An hour without a centre on a small database: what is left comes, what went is explained."""

import itertools
import json
from pathlib import Path

import pytest

from agent.core.clock import SimClock
from agent.core.model import Lane, Message
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.spans import Piece, runs_of
from agent.core.store import Store
from agent.delivery.outbox import Outbox
from agent.receiver.index import contents
from tests.delivery.centre import until
from tests.scenarios.test_lost_by_the_broker import TOPICS, Centre, Field

pytestmark = pytest.mark.broker
BEAT = json.loads((Path(__file__).parents[1] / "delivery" / "beat.json").read_text())
POSITION = {
    "lat_deg": 52.5,
    "lon_deg": 13.4,
    "altitude_m": 34.0,
    "quality": 1,
    "satellites": 9,
    "hdop": 0.9,
    "fix_utc_ms": 1,
}
HOUR_S = 3600


@pytest.fixture
def small(tmp_path, clock):
    store = Store(tmp_path / "outpost.db", DEVICE_MIGRATIONS, clock, max_bytes=1 << 20)
    store.open()
    yield store
    store.close()


def an_hour_alone(store):
    """Beats each ten seconds, positions each second, a rare report twice an hour."""
    sim = SimClock()
    outbox = Outbox(store, TOPICS, sim, boot=1)

    def a_minute(connection):
        for _ in range(60):
            sim.advance(1)
            second = sim.mono_ns() // 10**9
            outbox.put_in(connection, Message(Lane.TELEMETRY, "position", POSITION))
            if second % 10 == 0:
                outbox.put_in(connection, Message(Lane.TELEMETRY, "beat", BEAT))
            if second % 1800 == 900:
                body = {"state": "good", "since_utc_ms": 1, "detail": ""}
                outbox.put_in(connection, Message(Lane.TELEMETRY, "state/rare", body))

    for _ in range(HOUR_S // 60):
        store.write(a_minute)
    return HOUR_S + HOUR_S // 10 + 2


def numbers_told(connection):
    rows = connection.execute(
        "SELECT first_seq, last_seq, marks, state, reason, asks FROM gap WHERE lane = 'telemetry'"
    ).fetchall()
    assert {(row["state"], row["reason"], row["asks"]) for row in rows} == {("told", "evicted", 0)}
    return [
        number
        for row in rows
        for first, last in runs_of(Piece(row["first_seq"], row["last_seq"], row["marks"]))
        for number in range(first, last + 1)
    ]


def test_an_hour_on_a_small_database_arrives_thinned_and_with_nothing_unexplained(
    embedded, small, tmp_path
):
    made = an_hour_alone(small)
    kept = Outbox(small, TOPICS, SimClock(), 1).depths()["telemetry"]
    assert made / 8 < kept < made
    field = Field(tmp_path, small, embedded.port)
    uplink, commands = field.device()
    with Centre(field, replay_after_s=5.0) as centre:
        with uplink, commands:
            assert until(field.is_empty, 30), field.outbox.depths()
            assert until(lambda: centre.count() == kept)
        with centre.store.reading() as connection:
            gone = numbers_told(connection)
            rows = connection.execute(
                "SELECT seq, kind, mono_ms FROM message WHERE lane = 'telemetry' ORDER BY seq"
            ).fetchall()
            (spans,) = connection.execute("SELECT count(*) FROM gap").fetchone()
    shown = contents(tmp_path / "centre")["gaps"]
    assert sum(row["messages"] for row in shown if row["lane"] == "telemetry") == len(gone)
    assert sorted([*gone, *(row["seq"] for row in rows)]) == list(range(1, made + 1))
    assert spans < 60, "few rows tell of thousands of numbers"
    assert [row["kind"] for row in rows].count("state/rare") == 2
    for kind, most_s in (("position", 30), ("beat", 700)):
        times_s = [0, *(row["mono_ms"] // 1000 for row in rows if row["kind"] == kind), HOUR_S]
        assert max(after - before for before, after in itertools.pairwise(times_s)) <= most_s, kind
