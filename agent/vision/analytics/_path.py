"""What is new of a track, without walking its whole history at every instant."""

from agent.core.model import Track, TrackPoint


def sights_since(track: Track, t_us: int | None) -> list[TrackPoint]:
    """Give the observed points after an instant, oldest first; all of them for None."""
    found = []
    for point in reversed(track.history):
        if t_us is not None and point.t_us <= t_us:
            break
        if point.is_observed:
            found.append(point)
    return found[::-1]
