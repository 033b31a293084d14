"""Outpost, the agent on the edge box: source, ring, motion, detect, track, event, clip, outbox, uplink."""
