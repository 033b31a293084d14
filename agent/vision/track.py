"""Detections joined to tracks over time, without looking at pictures.

Two-stage association after Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every
Detection Box", 2022: confident detections first, then weak ones, which may carry a track on but
never begin one. Boxes are grown before they are compared (Yang et al., "Hard to Track Objects with
Irregular Motions and Similar Appearances? Make It Easier by Buffering the Matching Space", 2023),
so that a walking person is still met at 2.5 detections a second. Between detections a track moves
along with the picture where that is told, else at constant velocity in an alpha-beta filter; pairs
are taken greedily, best overlap first. Stream time only.
"""

import math
from collections import deque
from collections.abc import Sequence
from itertools import zip_longest
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from agent.core.model import Box, Detection, Sight, Track, TrackPoint
from agent.vision.boxes import areas, corners, covered, grown, iou
from agent.vision.config import TrackConfig

HISTORY_S: Final = 120
HISTORY_STEP_US: Final = 250_000  # older points are thinned to four a second
MAX_HISTORY: Final = 600
MEMORY_S: Final = 60  # for which a lost track may find its successor
MAX_TRACKS: Final = 200  # best scores first: bounds the work on a noisy picture

_US_PER_S: Final = 1_000_000
_MIN_MISSES: Final = 2  # detections without it before a track may end, however rare they are
_MAX_COAST_S: Final = 1.0  # a prediction moves no longer than this
_POSITION_TAU_S: Final = 0.1
_VELOCITY_TAU_S: Final = 0.4
_MIN_OVERLAP: Final = 0.15
_MIN_WEAK_OVERLAP: Final = 0.3
_GROWN: Final = 0.5  # confirmed tracks, whose velocity is known
_GROWN_NEW: Final = 1.0  # new ones, which may go anywhere
_SAME_IOU: Final = 0.5  # a detection that hides so much of a track begins no other
_TWIN_IOU: Final = 0.75  # two tracks so close are one object
_INSIDE: Final = 0.9  # of a track that a look must have shown to miss it
_MIN_AREA: Final = 1e-6  # of the frame: what has left it
_RESTING_HEIGHTS_PER_S: Final = 0.15  # a walking person goes 0.8
_KNOWN_HITS: Final = 5
_REACH_SIZES: Final = 0.25
_REACH_SIZES_PER_S: Final = 0.4
_REACH_SPEED: Final = 0.5
_CLAIM_IOU: Final = 0.5  # of a detection with where another was seen: it is that one's
_STRANGE_IOU: Final = 0.1  # of a detection with a track that has nothing to do with it
_REACH_HEIGHTS: Final = 0.6  # of the object: a lost one comes back no further away


class Tracker:
    """Keeps the tracks of one camera.

    Args:
        config: birth and end of tracks.
        min_score: from here on a detection may confirm a track, below it only carry one on.
    """

    def __init__(self, config: TrackConfig, min_score: float) -> None:
        self._birth_score = config.birth_score
        self._max_missing_us = round(config.max_missing_s * _US_PER_S)
        self._min_score = min_score
        self._live: list[_Live] = []
        self._gone: list[_Live] = []
        self._next_id = 1

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Where everything that is tracked was at the last step, confirmed or not."""
        return tuple(track.box for track in self._live)

    def step(
        self,
        detections: Sequence[Detection] | None,
        t_us: int,
        moved: Sequence[Box | None] = (),
        looked: Sequence[Box] = (),
    ) -> tuple[Track, ...]:
        """Give the confirmed tracks at this instant, oldest first.

        Args:
            detections: what the detector saw, weak ones too; None where it did not look.
            t_us: stream time, later than at the last step.
            moved: where `boxes` went by the picture's own motion (`flow`); where that is None or
                not given, a track is extrapolated.
            looked: the areas where the detector looked; none: everywhere. A track outside is
                neither seen nor missed.
        """
        for track, box in zip_longest(self._live, moved):
            track.predict(t_us)
            if box is not None:
                track.carry(box, t_us)
        if detections is not None:
            self._associate(detections[:MAX_TRACKS], t_us, looked)
            self._bury(t_us)
            self._drop_twins()
        return tuple(track.record(t_us) for track in self._live if track.is_confirmed)

    def forget(self) -> None:
        """Drop every track, after a break in the stream; ids are not given again."""
        self._live.clear()
        self._gone.clear()

    @property
    def has_tracks(self) -> bool:
        """Whether anything is tracked, confirmed or not."""
        return bool(self._live)

    def waited_s(self, t_us: int) -> tuple[float, ...]:
        """Give for each of `boxes` how long the detector has not looked there, in seconds."""
        return tuple((t_us - track.last_look_us) / _US_PER_S for track in self._live)

    @property
    def has_new(self) -> bool:
        """Whether anything was seen once and waits to be confirmed."""
        return any(not track.is_confirmed for track in self._live)

    @property
    def is_resting(self) -> bool:
        """Whether all that is tracked was just seen, and where it had been."""
        return all(track.is_resting for track in self._live)

    def _associate(self, detections: Sequence[Detection], t_us: int, looked: Sequence[Box]) -> None:
        strong = [item for item in detections if item.score >= self._min_score]
        weak = [item for item in detections if item.score < self._min_score]
        known = [track for track in self._live if track.is_confirmed]
        new = [track for track in self._live if not track.is_confirmed]
        claimed = self._claimed(strong, new)
        known, strong = _match(known, strong, _GROWN, _MIN_OVERLAP, t_us, claimed)
        known, _ = _match(known, weak, 0.0, _MIN_WEAK_OVERLAP, t_us)
        new, strong = _match(new, strong, _GROWN_NEW, _MIN_OVERLAP, t_us)
        unseen = [*known, *new]
        for track, is_inside in zip(unseen, _inside(unseen, looked), strict=True):
            if is_inside:
                track.misses += 1
                track.last_look_us = t_us
        self._give_birth(strong, t_us)

    def _claimed(self, seen: Sequence[Detection], new: Sequence["_Live"]) -> NDArray[np.float64]:
        """Give for each detection how much it overlaps where a gone or a new track was seen."""
        others = [*self._gone, *new]
        if not others or not seen:
            return np.zeros(len(seen))
        overlap = iou(
            corners([track.last_seen for track in others]), corners([item.box for item in seen])
        )
        overlap[_differ([track.label for track in others], [item.label for item in seen])] = 0.0
        best: NDArray[np.float64] = overlap.max(axis=0)
        return best

    def _give_birth(self, detections: Sequence[Detection], t_us: int) -> None:
        for item in detections:
            seen = [track for track in self._live if track.label == item.label]
            is_hidden = (
                bool(seen)
                and float(iou(corners([track.box for track in seen]), corners([item.box])).max())
                > _SAME_IOU
            )
            if item.score >= self._birth_score and not is_hidden and len(self._live) < MAX_TRACKS:
                self._live.append(_Live(self._next_id, item, t_us, self._predecessor(item, t_us)))
                self._next_id += 1

    def _predecessor(self, seen: Detection, t_us: int) -> int | None:
        """Find the lost track that a new detection carries on: the nearest of its label."""
        missed = [track for track in self._live if track.is_confirmed and track.misses > 0]
        near = [
            (away, track)
            for track in (*missed, *self._gone)
            if track.label == seen.label
            and (away := track.distance(seen.box, t_us)) <= _REACH_HEIGHTS
        ]
        if not near:
            return None
        found = min(near, key=lambda item: item[0])[1]
        for tracks in (self._live, self._gone):
            if found in tracks:
                tracks.remove(found)
        return found.track_id

    def _bury(self, t_us: int) -> None:
        """Take ended tracks out, and remember the confirmed ones for those that follow."""
        over = [track for track in self._live if self._is_over(track, t_us)]
        self._live = [track for track in self._live if track not in over]
        self._gone += [track for track in over if track.is_confirmed]
        oldest_us = t_us - MEMORY_S * _US_PER_S
        self._gone = [track for track in self._gone if track.last_hit_us >= oldest_us][-MAX_TRACKS:]

    def _is_over(self, track: "_Live", t_us: int) -> bool:
        if track.misses < _MIN_MISSES:
            return False
        return not track.is_confirmed or t_us - track.last_hit_us > self._max_missing_us

    def _drop_twins(self) -> None:
        if len(self._live) < 2:  # noqa: PLR2004 - a pair
            return
        boxes = corners([track.box for track in self._live])
        dropped: set[int] = set()
        for first, second in np.argwhere(np.triu(iou(boxes, boxes) > _TWIN_IOU, k=1)).tolist():
            one, other = self._live[first], self._live[second]
            if one.label == other.label and not dropped & {first, second}:
                worse = second if one.rank >= other.rank else first
                if not (self._live[worse].misses and self._live[worse].is_known):
                    dropped.add(worse)
        self._live = [track for row, track in enumerate(self._live) if row not in dropped]


class _Live:
    """One object while it is followed."""

    __slots__ = (
        "_at_us",
        "_centre",
        "_first_us",
        "_hits",
        "_predicted",
        "_size",
        "_velocity",
        "box",
        "history",
        "label",
        "last_hit_us",
        "last_look_us",
        "last_seen",
        "misses",
        "predecessor",
        "score",
        "track_id",
    )

    def __init__(
        self, track_id: int, seen: Detection, t_us: int, predecessor: int | None = None
    ) -> None:
        self.track_id = track_id
        self.predecessor = predecessor
        self.label = seen.label
        self.score = seen.score
        self.box = self.last_seen = seen.box
        self.misses = 0
        self.last_hit_us = self.last_look_us = self._first_us = self._at_us = t_us
        self.history: deque[TrackPoint] = deque([TrackPoint(t_us, seen.box, Sight.DETECTED)])
        self._hits = 1
        self._centre = self._predicted = _centre(seen.box)
        self._size = (seen.box.w, seen.box.h)
        self._velocity = (0.0, 0.0)

    @property
    def is_confirmed(self) -> bool:
        return self._hits > 1

    @property
    def is_resting(self) -> bool:
        is_slow = math.hypot(*self._velocity) <= _RESTING_HEIGHTS_PER_S * self._size[1]
        return self.is_confirmed and not self.misses and is_slow

    @property
    def waiting_at(self) -> Box:
        """Where it was seen, if it was missed since; else where it is."""
        return self.last_seen if self.misses else self.box

    @property
    def is_known(self) -> bool:
        """Whether it was seen often enough to be somebody: hidden by another it is no twin."""
        return self._hits >= _KNOWN_HITS

    @property
    def expected_centre(self) -> tuple[float, float]:
        """Where its middle should be now; `predict` for this instant came before."""
        return self._predicted

    def reach(self, t_us: int) -> float:
        """Give how far from there it may be: without bound for one whose motion is not known."""
        if not self.is_known:
            return math.inf
        unseen_s = min((t_us - self.last_hit_us) / _US_PER_S, _MAX_COAST_S)
        size = max(self._size)
        return (
            _REACH_SIZES * size
            + (_REACH_SIZES_PER_S * size + _REACH_SPEED * math.hypot(*self._velocity)) * unseen_s
        )

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Which of two twins stays: the one just seen, then the one seen more often."""
        return self.misses == 0, self._hits, -self.track_id

    def predict(self, t_us: int) -> None:
        """Move to where the object should be now."""
        x, y = self._predicted = self._expected(t_us)
        self.box = _clipped(x, y, *self._size)
        self._remember(TrackPoint(t_us, self.box, Sight.PREDICTED))

    def carry(self, box: Box, t_us: int) -> None:
        """Move along with the picture's own motion; `predict` for this instant came before.

        A track that the detector looked for in vain is not carried: what moves in its place may
        be what hides it.
        """
        if self.misses:
            return
        self._predicted = _centre(box)
        span_s = max((t_us - self._at_us) / _US_PER_S, 1e-3)
        share = 1.0 - math.exp(-span_s / _VELOCITY_TAU_S)
        speed = _scaled(self._predicted, self._centre, 1 / span_s)
        (vx, vy), (sx, sy) = self._velocity, speed
        self._velocity = (vx + share * (sx - vx), vy + share * (sy - vy))
        self._centre, self._size, self._at_us = self._predicted, (box.w, box.h), t_us
        self.box = _clipped(*self._centre, *self._size)
        self.history[-1] = TrackPoint(t_us, self.box, Sight.PROPAGATED)

    def hit(self, seen: Detection, t_us: int) -> None:
        """Take a detection; `predict` for this instant came before."""
        span_s = max((t_us - self.last_hit_us) / _US_PER_S, 1e-3)
        self._follow(_centre(seen.box), span_s)
        self._size = (seen.box.w, seen.box.h)
        self.box, self.score = seen.box, seen.score
        self.last_seen = seen.box
        self._hits, self.misses = self._hits + 1, 0
        self.last_hit_us = self.last_look_us = self._at_us = t_us
        self.history[-1] = TrackPoint(t_us, seen.box, Sight.DETECTED)
        self._thin()

    def record(self, t_us: int) -> Track:
        """Give what the rules see."""
        return Track(
            self.track_id,
            self.label,
            self.score,
            self.box,
            age_s=(t_us - self._first_us) / _US_PER_S,
            missing_s=(t_us - self.last_hit_us) / _US_PER_S,
            history=tuple(self.history),
            predecessor=self.predecessor,
        )

    def distance(self, box: Box, t_us: int) -> float:
        """Give how far a box is from where this one may be by now, in heights of the larger one.

        It may have stopped anywhere between where it was seen and where it would be.
        """
        (x0, y0), (x1, y1), (x, y) = self._centre, self._expected(t_us), _centre(box)
        dx, dy = x1 - x0, y1 - y0
        along = ((x - x0) * dx + (y - y0) * dy) / max(dx * dx + dy * dy, 1e-12)
        along = min(1.0, max(0.0, along))
        away = math.hypot(x - x0 - along * dx, y - y0 - along * dy)
        return away / max(box.h, self._size[1], 1e-6)

    def _expected(self, t_us: int) -> tuple[float, float]:
        ahead_s = min((t_us - self._at_us) / _US_PER_S, _MAX_COAST_S)
        (x, y), (vx, vy) = self._centre, self._velocity
        return x + vx * ahead_s, y + vy * ahead_s

    def _follow(self, seen: tuple[float, float], span_s: float) -> None:
        if self._hits == 1 and self._at_us == self.last_hit_us:
            self._velocity = _scaled(seen, self._centre, 1 / span_s)
            self._centre = seen
            return
        off = _scaled(seen, self._predicted, 1.0)
        alpha = 1.0 - math.exp(-span_s / _POSITION_TAU_S)
        beta = (1.0 - math.exp(-span_s / _VELOCITY_TAU_S)) / span_s
        (px, py), (vx, vy) = self._predicted, self._velocity
        self._centre = (px + alpha * off[0], py + alpha * off[1])
        self._velocity = (vx + beta * off[0], vy + beta * off[1])

    def _remember(self, point: TrackPoint) -> None:
        past = self.history
        past.append(point)
        while len(past) > MAX_HISTORY or point.t_us - past[0].t_us > HISTORY_S * _US_PER_S:
            past.popleft()
        self._thin()

    def _thin(self) -> None:
        """Leave out the point before the newest where it is dense, but never the last sight."""
        past = self.history
        is_dense = len(past) > 2 and past[-1].t_us - past[-3].t_us < HISTORY_STEP_US  # noqa: PLR2004
        if is_dense and (past[-1].is_detected or not past[-2].is_detected):
            del past[-2]


def _match(
    tracks: list[_Live],
    detections: list[Detection],
    share: float,
    min_overlap: float,
    t_us: int,
    claimed: NDArray[np.float64] | None = None,
) -> tuple[list[_Live], list[Detection]]:
    """Give each detection to the track it overlaps best; returns what is left of both.

    One that lies where a gone or a new track was (`claimed`, its overlap with that) is nobody's
    who should be elsewhere.
    """
    if not tracks or not detections:
        return tracks, detections
    found = grown(corners([item.box for item in detections]), share)
    overlap = np.maximum(  # who was missed may have stopped where it was seen
        iou(grown(corners([track.box for track in tracks]), share), found),
        iou(grown(corners([track.waiting_at for track in tracks]), share), found),
    )
    overlap[_differ([track.label for track in tracks], [item.label for item in detections])] = 0.0
    overlap[_too_far(tracks, detections, t_us)] = 0.0
    if claimed is not None and (claimed >= _CLAIM_IOU).any():
        plain = iou(corners([t.box for t in tracks]), corners([d.box for d in detections]))
        overlap[(claimed >= _CLAIM_IOU) & (plain < _STRANGE_IOU)] = 0.0
    rows: set[int] = set()
    columns: set[int] = set()
    for place in np.argsort(-overlap, axis=None, kind="stable").tolist():
        row, column = divmod(place, len(detections))
        if overlap[row, column] < min_overlap:
            break
        if row not in rows and column not in columns:
            tracks[row].hit(detections[column], t_us)
            rows.add(row)
            columns.add(column)
    return (
        [track for row, track in enumerate(tracks) if row not in rows],
        [item for column, item in enumerate(detections) if column not in columns],
    )


def _inside(tracks: Sequence[_Live], looked: Sequence[Box]) -> Sequence[bool]:
    """Say which tracks stand where the detector looked; one without any area left does."""
    if not tracks or not looked:
        return [True] * len(tracks)
    boxes = corners([track.box for track in tracks])
    is_inside = (covered(boxes, corners(looked)) >= _INSIDE) | (areas(boxes) < _MIN_AREA)
    return cast("list[bool]", is_inside.tolist())


def _too_far(
    tracks: Sequence["_Live"], detections: Sequence[Detection], t_us: int
) -> NDArray[np.bool_]:
    """Tell which detections no known track can have come to."""
    places = np.array([track.expected_centre for track in tracks])
    found = np.array([_centre(item.box) for item in detections])
    away = np.hypot(places[:, None, 0] - found[None, :, 0], places[:, None, 1] - found[None, :, 1])
    reach = np.array([track.reach(t_us) for track in tracks])
    too_far: NDArray[np.bool_] = away > reach[:, None]
    return too_far


def _differ(first: Sequence[str], second: Sequence[str]) -> NDArray[np.bool_]:
    different: NDArray[np.bool_] = np.array(first)[:, None] != np.array(second)[None, :]
    return different


def _centre(box: Box) -> tuple[float, float]:
    return box.x + box.w / 2, box.y + box.h / 2


def _scaled(
    end: tuple[float, float], start: tuple[float, float], factor: float
) -> tuple[float, float]:
    return (end[0] - start[0]) * factor, (end[1] - start[1]) * factor


def _clipped(x: float, y: float, w: float, h: float) -> Box:
    left, top = max(0.0, x - w / 2), max(0.0, y - h / 2)
    right, bottom = min(1.0, x + w / 2), min(1.0, y + h / 2)
    return Box(left, top, max(0.0, right - left), max(0.0, bottom - top))
