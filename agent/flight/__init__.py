"""From a vehicle's messages and files to a flight that can be shown: sessions, time, place."""
