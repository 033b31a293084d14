"""Made scenes whose truth is known: paths on the ground, a camera, a detector's faults, events.

`scene_for(kind, seed)` gives a scene for a kind of rule, `looks` what a detector says of it and
`truth_of` the events that truly happen. Everything follows from one whole number.
"""

from firmware_sim.scenes.looks import NOISELESS, Look, Noise, Seen, look_times_us, looks
from firmware_sim.scenes.pinhole import Camera
from firmware_sim.scenes.scripts import scene_for
from firmware_sim.scenes.stage import Actor, Mark, Sampled, Scene, sample
from firmware_sim.scenes.told import Case, Truth
from firmware_sim.scenes.truth import KINDS, truth_in, truth_of

__all__ = [
    "KINDS",
    "NOISELESS",
    "Actor",
    "Camera",
    "Case",
    "Look",
    "Mark",
    "Noise",
    "Sampled",
    "Scene",
    "Seen",
    "Truth",
    "look_times_us",
    "looks",
    "sample",
    "scene_for",
    "truth_in",
    "truth_of",
]
