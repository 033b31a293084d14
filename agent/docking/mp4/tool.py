"""What a rescued copy says that it was made by, and why."""

from typing import Final

TOOL: Final = "outpost rescue"
REASON: Final = "the recording cannot be played"
