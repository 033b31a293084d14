"""Where the headers of good clips are kept: one for each model, firmware and mode of recording.

A broken recording does not tell its mode, so every header of its camera's model and firmware is
tried, the newest first; one of another mode is refused by the rescue itself.
"""

import hashlib
import re
from pathlib import Path
from typing import Final

from agent.docking.confined import Tick, idle
from agent.docking.probe import Probe, RescueFacts, rescue_in_child

FOLDER: Final = "headers"
_MOST_CHARS: Final = 40  # of a camera's own words within a file name
_MOST_TRIED: Final = 8


def header_path(state_dir: Path, model: str, firmware: str, found: Probe) -> Path:
    """Give where the header of a good clip belongs."""
    mode = f"{_part(found.codec)}-{found.width_px}x{found.height_px}"
    return state_dir / FOLDER / f"{_part(model)}-{_part(firmware)}-{mode}.json"


def headers_of(state_dir: Path, model: str, firmware: str) -> list[Path]:
    """Give the headers kept of a camera's model and firmware, the newest first."""
    found = (state_dir / FOLDER).glob(f"{_part(model)}-{_part(firmware)}-*-*.json")
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def rescue_by_any(
    broken: Path, headers: list[Path], target: Path, tick: Tick = idle
) -> RescueFacts:
    """Rescue by the first header that fits; gives the first one's `why` if none does."""
    if not headers:
        return RescueFacts(why="no good recording of this camera model has been seen yet")
    refused: list[RescueFacts] = []
    for header in headers[:_MOST_TRIED]:
        facts = rescue_in_child(broken, header, target, tick)
        if not facts.why:
            return facts
        refused.append(facts)
    return refused[0]


def _part(words: str) -> str:
    """Give a camera's own words as a part of a file name: never a path, never another's name."""
    safe = re.sub(r"[^a-z0-9._]", "_", words.lower())[:_MOST_CHARS].strip(".") or "_"
    if safe == words:
        return safe
    return f"{safe}_{hashlib.sha256(words.encode('utf-8', 'replace')).hexdigest()[:8]}"
