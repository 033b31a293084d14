"""Why a technician is called: a code for the display, a plain sentence, and what to do."""

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """What stands beside `Call technician`, and in rows and reports."""

    UNKNOWN_DEVICE = "D-01"
    SILENT = "D-02"
    LOGIN_REFUSED = "D-03"
    NO_STORAGE = "D-04"
    UNMOUNTABLE = "D-05"
    NO_SERIAL = "D-06"
    SWAPPED = "D-07"
    DUPLICATE = "D-08"
    NOT_IN_FLEET = "D-09"
    TOO_MUCH = "D-10"
    READ_ERRORS = "D-11"
    DOCK_FULL = "D-12"
    CHANGES = "D-13"
    WIPE_REFUSED = "D-14"
    WIPE_LIED = "D-15"
    CHANGED = "D-16"
    COPY_DAMAGED = "D-17"
    TAKEN_EARLY = "D-18"
    FIRMWARE = "D-19"
    LOST_ON_CAMERA = "D-20"
    CENTRE_REFUSES = "D-21"
    OTHER_FILES = "D-22"
    ODD_ENTRIES = "D-23"
    CLOCK_FAR = "D-24"
    NO_CLOCK = "D-25"
    RECEIPT_WRONG = "D-26"
    CENTRE_AWAY = "D-27"


@dataclass(frozen=True, slots=True)
class Meaning:
    """A code in words."""

    sentence: str
    cure: str


MEANINGS: dict[Code, Meaning] = {
    Code.UNKNOWN_DEVICE: Meaning(
        "Something hangs here that is no camera we know.",
        "Take it out. If it is a new model, add its dialect or its USB id.",
    ),
    Code.SILENT: Meaning(
        "The camera does not answer, or makes no sense.",
        "Take it out, switch it off and on, dock it again; then try another cable.",
    ),
    Code.LOGIN_REFUSED: Meaning(
        "The camera does not take our password.",
        "Put the right one into the password file, then dock the camera again.",
    ),
    Code.NO_STORAGE: Meaning(
        "The camera never came back as storage.",
        "Dock it again; if it stays so, read its card by hand with `outpost ingest`.",
    ),
    Code.UNMOUNTABLE: Meaning(
        "The camera's storage cannot be read safely.",
        "Its file system is damaged or not allowed here: have the card copied by a specialist.",
    ),
    Code.NO_SERIAL: Meaning(
        "The camera tells no serial number.",
        "Its footage is kept under the dock's own number; find out whose camera it is.",
    ),
    Code.SWAPPED: Meaning(
        "Another camera came back than the one that was spoken to.",
        "Look whose camera hangs here; its footage is kept, nothing of it is wiped.",
    ),
    Code.DUPLICATE: Meaning(
        "Two cameras claim the same serial number.",
        "One of them is a copy or was set up wrongly: give it its own number.",
    ),
    Code.NOT_IN_FLEET: Meaning(
        "This camera is not on the site's list.",
        "Add it to `dock.fleet`, or find out where it belongs.",
    ),
    Code.TOO_MUCH: Meaning(
        "There is more on the camera, or deeper, than a camera can hold.",
        "What was within the limits is kept. The card is damaged or was tampered with.",
    ),
    Code.READ_ERRORS: Meaning(
        "Parts of the footage cannot be read any more.",
        "What can be read is kept, with a map of the rest. Exchange the card.",
    ),
    Code.DOCK_FULL: Meaning(
        "The dock's disk is full: footage stays on the cameras.",
        "See to it that the centre is reached, or put in a larger disk. Nothing is lost.",
    ),
    Code.CHANGES: Meaning(
        "Files change while they are read.",
        "The camera still records, or its card lies. Stop it, dock it again.",
    ),
    Code.WIPE_REFUSED: Meaning(
        "The camera does not let its files be deleted.",
        "Look for a write protection; the footage is safe at the centre.",
    ),
    Code.WIPE_LIED: Meaning(
        "Files that were deleted are there again.",
        "The card does not store what is written to it: exchange it. Nothing is lost.",
    ),
    Code.CHANGED: Meaning(
        "A file on the camera is not the one that was copied.",
        "Both are kept, nothing of it is wiped. The card is damaged or was tampered with.",
    ),
    Code.COPY_DAMAGED: Meaning(
        "The dock's own copy is not what was sealed.",
        "The dock's disk is failing: exchange it. The camera's file stays.",
    ),
    Code.TAKEN_EARLY: Meaning(
        "The camera was taken before its footage was safe.",
        "Put it back, into any slot: it goes on where it stopped.",
    ),
    Code.FIRMWARE: Meaning(
        "The camera's firmware is not one of those known to be right.",
        "Bring it up to date, or add its firmware to `dock.firmware`.",
    ),
    Code.LOST_ON_CAMERA: Meaning(
        "A file was gone from the camera before it could be copied.",
        "It was deleted or overwritten on the camera: ask the officer.",
    ),
    Code.CENTRE_REFUSES: Meaning(
        "The centre does not take a file.",
        "See `outpost inspect files`; it stays here and on the camera.",
    ),
    Code.OTHER_FILES: Meaning(
        "There are files on the camera that are no recordings.",
        "They are kept and never wiped; look what they are.",
    ),
    Code.ODD_ENTRIES: Meaning(
        "There is something on the camera that cannot be copied: a link, a device.",
        "The card was tampered with. Nothing of it is wiped.",
    ),
    Code.CLOCK_FAR: Meaning(
        "The camera's clock was more than a day off.",
        "It was set. If it is so again at the next docking, its clock battery is empty.",
    ),
    Code.NO_CLOCK: Meaning(
        "The dock itself does not know what time it is: cameras' clocks are not set.",
        "See to NTP or a satellite receiver (`outpost status`, `clock`).",
    ),
    Code.RECEIPT_WRONG: Meaning(
        "A receipt does not stand up to being checked again.",
        "Nothing was wiped. Compare the centre's key with `keys/receiver_keys.json`.",
    ),
    Code.CENTRE_AWAY: Meaning(
        "The centre has signed for nothing for a day, though files wait for it.",
        "Look at the link and at the centre's disk; footage is safe here meanwhile.",
    ),
}


def meaning(code: str) -> Meaning:
    """Give a code in words; of one that is not known, that it is not."""
    try:
        return MEANINGS[Code(code)]
    except ValueError:
        return Meaning("A code of a newer version.", "See its page, docs/DOCK.md.")
