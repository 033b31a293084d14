"""The dock: what comes from a body camera's card."""
