"""A file as a device has offered it."""

from dataclasses import dataclass

from agent.core import wire


@dataclass(frozen=True, slots=True)
class Offered:
    """A file that a device has offered, checked against its manifest."""

    offer: wire.Json
    entry: wire.Json  # the file as the manifest describes it
    clip_id: str

    @property
    def ids(self) -> tuple[str, str]:
        """Device and fid."""
        return str(self.offer["device"]), str(self.offer["fid"])
