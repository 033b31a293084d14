"""A video by hand: every detection of it, or the events that a configuration makes of it."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

from agent.core.clock import Clock
from agent.core.model import Box, Event
from agent.vision import calibration, lines
from agent.vision.config import CameraConfig, TrackConfig
from agent.vision.decode import Decoder, Frame, Source
from agent.vision.follow import Eye
from agent.vision.pipeline import Pipeline
from agent.vision.track import Tracker

END_OF_VIDEO: Final = "end of video"

_US_PER_S: Final = 1_000_000
_NS_PER_US: Final = 1_000


def frames(source: Source, *, key_frames_only: bool = False) -> Iterator[Frame]:
    """Give every picture of a source, in order; closes the source.

    Raises:
        SourceLost, AuthRefused, Unsupported: as the driver says.
    """
    with closing(source):
        decoder = Decoder(source.open(), key_frames_only=key_frames_only)
        for packet in source.packets():
            yield from decoder.decode(packet)
        yield from decoder.flush()


def detect_lines(
    source: Source, eye: Eye, every: int, min_score: float
) -> Iterator[dict[str, Any]]:
    """Give detections and tracks of every picture whose number is a multiple of `every`.

    Pictures are counted from 1; boxes are left, top, width, height in pixels of the picture.
    """
    tracker = Tracker(TrackConfig(), min_score)
    for frame in frames(source):
        if frame.index % every:
            continue
        seen = eye.detect(frame)
        tracks = tracker.step(seen, frame.t_us)
        yield {
            "frame": frame.index,
            "pts_s": _seconds(frame.t_us),
            "detections": [
                {"label": item.label, "score": item.score, "box_px": _box_px(item.box, frame)}
                for item in seen
                if item.score >= min_score
            ],
            "tracks": [
                {
                    "track_id": track.track_id,
                    "label": track.label,
                    "score": track.score,
                    "box_px": _box_px(track.box, frame),
                    "sight": track.history[-1].sight.value,
                }
                for track in tracks
            ],
        }


def analyse_lines(
    source: Source, camera: CameraConfig, eye: Eye, min_score: float, clock: Clock
) -> Iterator[dict[str, Any]]:
    """Give every opened and closed event of a video: its message body and its times in the video.

    Stream time stands for wall time, so `start_utc_ms` counts from the video's first second.
    """
    pipeline = Pipeline(camera, eye, min_score, clock, calibration.of(camera))
    for frame in frames(source):
        frame.utc_ns = frame.t_us * _NS_PER_US
        for event in pipeline.step(frame).events:
            yield _event_line(event)
    for event in pipeline.break_off(END_OF_VIDEO):
        yield _event_line(event)


def _event_line(event: Event) -> dict[str, Any]:
    end_utc_ns = event.end_utc_ns
    return {
        "event": lines.event_body(event),
        "start_pts_s": _seconds(event.start_utc_ns // _NS_PER_US),
        "end_pts_s": None if end_utc_ns is None else _seconds(end_utc_ns // _NS_PER_US),
        "path": event.path,
    }


def _seconds(t_us: int) -> float:
    return round(t_us / _US_PER_S, 3)


def _box_px(box: Box, frame: Frame) -> list[float]:
    sides = (frame.width_px, frame.height_px, frame.width_px, frame.height_px)
    return [round(part * side, 1) for part, side in zip(box, sides, strict=True)]
