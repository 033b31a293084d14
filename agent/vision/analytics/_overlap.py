"""How much boxes share."""

from agent.core.model import Box


def shared_area(one: Box, other: Box) -> float:
    """Give the area that two boxes share, as a fraction of the picture."""
    w = min(one.x + one.w, other.x + other.w) - max(one.x, other.x)
    h = min(one.y + one.h, other.y + other.h) - max(one.y, other.y)
    return w * h if w > 0 and h > 0 else 0.0


def iou(one: Box, other: Box) -> float:
    """Give the intersection over union, 0..1."""
    shared = shared_area(one, other)
    return shared / (one.w * one.h + other.w * other.h - shared) if shared else 0.0


def covered(one: Box, by: Box) -> float:
    """Give the share of a box that another covers, 0..1."""
    shared = shared_area(one, by)
    return shared / (one.w * one.h) if shared else 0.0
