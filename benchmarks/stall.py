"""The detector hangs for 90 s: how much footage that costs.

Real processes: the analysis process is stopped with SIGSTOP, which the agent cannot tell from a
model that hangs; after 60 s of silence it is killed and begun anew. Footage is counted from the
segment rows and the gap rows. The usual recorder keeps finished pieces of ten seconds in memory
until the detector has seen them, at most six a camera, and deletes the oldest beyond that (its
documented rule): what it would lose is computed from that rule, not measured.
"""

import os
import signal
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

from benchmarks._table import markdown
from firmware_sim.demo import Screen, Stage, free_port, prepare

STALL_S = 90.0
BEFORE_S, AFTER_S = 10.0, 15.0
PIECE_S, PIECES = 10.0, 6
NS_PER_S = 1_000_000_000
PICTURE_NS = NS_PER_S // 10


def table() -> str:
    """Measure, and give the table."""
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder), "embedded", free_port())
        stage.make_media()
        try:
            span_s, recorded_s, gaps = _measure(stage)
        finally:
            stage.clear()
    theirs_s = max(0.0, STALL_S - PIECE_S * PIECES)
    rows = [
        (
            "Outpost",
            f"{span_s:.1f}",
            f"{recorded_s:.1f}",
            f"{max(0.0, span_s - recorded_s):.1f}",
            gaps,
        ),
        (
            "usual recorder, by its rule",
            f"{STALL_S:.1f}",
            f"{STALL_S - theirs_s:.1f}",
            f"{theirs_s:.1f}",
            "-",
        ),
    ]
    head = ["way", "seconds looked at", "recorded", "lost", "gap rows"]
    return markdown(head, rows)


def _measure(stage: Stage) -> tuple[float, float, int]:
    """Stop the analysis in a run; gives the span, what is recorded of it, and the gaps."""
    prepare(stage, Screen(is_quiet=True))
    while not any(camera["inferences"] > 3 for camera in stage.status().get("cameras", [])):  # noqa: PLR2004
        time.sleep(0.2)
    time.sleep(BEFORE_S)
    begun_ns = time.time_ns()
    (analysis,) = stage.children("agent")
    os.kill(analysis, signal.SIGSTOP)
    time.sleep(STALL_S)
    time.sleep(AFTER_S)
    ended_ns = time.time_ns() - round(2 * NS_PER_S)  # what came last may not be written yet
    stage.stop("agent")
    with closing(sqlite3.connect(stage.state / "outpost.db")) as connection:
        spans = connection.execute(
            "SELECT start_utc_ns, end_utc_ns FROM segment ORDER BY start_utc_ns"
        ).fetchall()
        gaps = connection.execute(
            "SELECT count(*) FROM gap WHERE from_utc_ns > ? AND to_utc_ns < ?", (begun_ns, ended_ns)
        ).fetchone()[0]
    reached_ns, covered_ns = begun_ns, 0
    for start_ns, last_ns in spans:
        end_ns = last_ns + PICTURE_NS  # the row tells when the last picture was taken
        covered_ns += max(0, min(end_ns, ended_ns) - max(start_ns, reached_ns))
        reached_ns = max(reached_ns, min(end_ns, ended_ns))
    return (ended_ns - begun_ns) / NS_PER_S, covered_ns / NS_PER_S, gaps
