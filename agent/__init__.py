"""Outpost, the agent on the edge box.

In the order of the flow: source, ring, motion, detect, track, event, clip, outbox, uplink.
"""

__version__ = "0.1.0"
