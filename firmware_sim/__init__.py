"""The far side of every wire, for the demo and the tests; imports nothing of agent or drivers."""
