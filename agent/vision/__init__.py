"""The camera stages: source, ring, segments, motion, detect, track, analytics, event, clip."""
