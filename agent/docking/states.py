"""The states of a slot and the one word that a person sees for each."""

from enum import StrEnum


class State(StrEnum):
    """Where a slot's work stands; written before what it says is done."""

    EMPTY = "empty"
    DETECTED = "detected"
    IDENTIFYING = "identifying"
    CLOCK = "clock"
    STORAGE = "storage"  # waits until the camera is back as storage
    INVENTORY = "inventory"
    COPYING = "copying"
    VERIFYING = "verifying"
    SEALED = "sealed"
    UPLOADING = "uploading"  # the camera may be taken
    RECEIPTED = "receipted"
    WIPING = "wiping"
    CHECKED = "checked"
    READY = "ready"
    UNKNOWN = "unknown"  # a device that we do not know
    QUARANTINE = "quarantine"  # kept safe, nothing wiped: a technician looks
    ATTENTION = "attention"  # cannot go on: a technician looks
    PULLED = "pulled"  # taken too early: awaited


class Word(StrEnum):
    """What stands at a slot, in large letters."""

    EMPTY = "Empty"
    BUSY = "Busy"  # do not take
    READY = "Ready"
    TAKE = "Take"  # this one
    CHARGING = "Charging"  # footage safe, battery low
    CALL = "Call technician"


COLOURS = {
    Word.EMPTY: "off",
    Word.BUSY: "amber",
    Word.READY: "green",
    Word.TAKE: "green",
    Word.CHARGING: "blue",
    Word.CALL: "red",
}
