"""What the camera role is built from; apart from the others', as it needs the video library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.roles.config import CameraRole
from agent.roles.kit import Kit
from agent.vision.recorder import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraKit(Kit):
    """What a box beside cameras has besides."""

    config: CameraRole
    sources: Mapping[str, Source]  # main stream of each camera
    analysis_argv: Sequence[str]
