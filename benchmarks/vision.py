"""CPU of seeing beside two other ways, and how well each sees.

The plain way opens the main stream with cv2.VideoCapture, runs MOG2 on every full picture and the
same model on the whole picture at the same rate. The usual recorder's way (`_usual`) reads the
sub stream, as ours does, or scales the main stream, and looks as often as its own rules say; "of
usual" compares with the former. One process and one thread,
the ways in turn and again, the cheaper round of each; CPU time of the process and its child.
Recall and precision (IoU 0.3) are of what the same model sees in the main stream with the whole
frame and four tiles, five times a second: that says whether cheaper is blinder, not how well any
of them sees.
"""

import tempfile
from functools import partial
from pathlib import Path

import cv2

from benchmarks import _footage, _ways
from benchmarks._footage import Clip
from benchmarks._sight import Boxes, recall_and_precision
from benchmarks._table import markdown
from benchmarks._usual import usual
from benchmarks._ways import LOOKS_PER_S, MS, Run, ours, plain

SECONDS = 30.0
RATES_PER_S = (2.0, 5.0)
ROUNDS = 2
USUAL = "usual recorder, sub stream"
USUAL_MAIN = "usual recorder, main stream made small"

HEAD = (
    *("way", "decode", "motion", "look", "track", "total ms/s", "of plain", "of usual"),
    *("inferences/s", "outside them ms/s", "of usual", "recall", "precision"),
)


def table() -> str:
    """Measure, and give a table a clip."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        made, skipped = _footage.clips(Path(folder), SECONDS)
        parts = [f"{clip.name}; {clip.length_s:.0f} s\n\n{_of_clip(clip)}" for clip in made]
    return "\n\n".join([*parts, *skipped])


def _of_clip(clip: Clip) -> str:
    ways = {
        USUAL: partial(usual, clip.sub, clip.sub_size, clip.fps),
        USUAL_MAIN: partial(usual, clip.main, clip.sub_size, clip.fps),
    }
    for rate in RATES_PER_S:
        ways[f"plain OpenCV, main stream, {rate:g}/s"] = partial(plain, clip.main, rate, clip.fps)
        ways[f"Outpost, sub stream, {rate:g}/s"] = partial(ours, clip.sub, rate)
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            runs[name].append(way())
    best = {name: min(found, key=lambda run: run.total_s) for name, found in runs.items()}
    every = max(1, round(clip.fps / LOOKS_PER_S))
    wanted = _ways.reference(clip.main, clip.label, every)
    plainly = best[USUAL]
    rows = []
    for name, run in best.items():
        plainly = run if name.startswith("plain") else plainly  # stands before ours of its rate
        rows.append(_row(name, run, clip, wanted, (plainly, best[USUAL])))
    return markdown(HEAD, rows)


def _row(
    name: str, run: Run, clip: Clip, wanted: Boxes, beside: tuple[Run, Run]
) -> tuple[str, ...]:
    plainly, usually = beside
    recall, precision = recall_and_precision(wanted, run.shown(clip.label))
    is_anybody = any(wanted.values())
    return (
        name,
        *(f"{run.cpu_s[stage] / clip.length_s * MS:.1f}" for stage in _ways.STAGES),
        f"{run.total_s / clip.length_s * MS:.1f}",
        "" if name in {USUAL, USUAL_MAIN} else f"{run.total_s / plainly.total_s:.2f}x",
        f"{run.total_s / usually.total_s:.2f}x",
        f"{run.inferences / clip.length_s:.1f}",
        f"{run.outside_s / clip.length_s * MS:.1f}",
        f"{run.outside_s / usually.outside_s:.2f}x",
        f"{recall:.2f}" if is_anybody else "",
        f"{precision:.2f}" if is_anybody else "",
    )
