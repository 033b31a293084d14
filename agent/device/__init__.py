"""The box itself: its health, its processes, what is on it."""
