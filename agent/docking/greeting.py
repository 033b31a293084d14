"""The first phase of a docking: who is it, what does its clock say, how full is its battery."""

from collections.abc import Callable

from agent.core import log
from agent.core.dock import CameraLink, Identity, Storage
from agent.core.errors import Unsupported
from agent.docking.bench import Bench
from agent.docking.codes import Code
from agent.docking.names import camera_name
from agent.docking.officers import UNKNOWN
from agent.docking.slotrows import Docking, Slot

_log = log.get(__name__)


class Greeting:
    """Speaks to a camera and writes down what it says."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def identify(self, slot: Slot, link: CameraLink) -> None:
        """Ask who it is, and what charge it has."""
        identity = link.identify()
        self.known(slot, identity)
        try:
            self._bench.rows.battery(slot.session_id, link.battery())
        except Unsupported:
            _log.info("camera does not tell its charge", slot=slot.slot)

    def known(self, slot: Slot, identity: Identity) -> None:
        """Write down who it is, and what speaks against wiping anything of it."""
        bench = self._bench
        camera = camera_name(identity.serial)
        officer = bench.officers.carried(camera, identity.officer) if camera else UNKNOWN
        code = self._doubt(slot, camera, identity)
        # A camera of its own: what the other one has is not gone because it is not on this one.
        own = f"{camera[:40] or 'unknown'}.{slot.session_id[-8:]}"
        named = own if code in (Code.NO_SERIAL, Code.DUPLICATE) else camera
        bench.rows.identified(slot.session_id, named, identity, officer)
        bench.note(
            "camera.docked",
            slot.session_id,
            {
                "camera": named,
                "serial": identity.serial,
                "model": identity.model,
                "firmware": identity.firmware,
                "slot": slot.slot,
                "officer": officer[0],
                "officer_source": officer[1],
            },
        )
        if code:
            bench.rows.quarantine(slot.session_id, code)
            _log.warning("camera in quarantine", slot=slot.slot, camera=named, code=code)
        bench.rows.found_again(named)

    def clock(self, slot: Slot, link: CameraLink) -> None:
        """Write down how wrong its clock is, then set it; push settings, ask for marks."""
        bench = self._bench
        try:
            reading = link.read_clock()
        except Unsupported:
            _log.info("camera does not tell its time", slot=slot.slot)
        else:
            bench.rows.clock_read(slot.session_id, reading)
        wanted = bench.config.set_clock
        if wanted == "always" or (wanted == "when_sure" and bench.is_clock_good()):
            self._if_it_can(slot, "clock", lambda: self._set_clock(slot, link))
        if bench.config.settings:
            self._if_it_can(slot, "settings", lambda: self._configure(slot, link))
        self._if_it_can(slot, "marks", lambda: bench.rows.marked(slot.session_id, link.marks()))

    def _set_clock(self, slot: Slot, link: CameraLink) -> None:
        """Set it; the log tells of it once it is done, the row has told how wrong it was before."""
        link.set_clock(self._bench.clock.utc_ns())
        docking = self._docking(slot)
        detail = {
            "offset_ms_before": docking.clock_offset_ms,
            "rtt_ms": docking.clock_rtt_ms,
            "camera": docking.camera,
        }
        self._bench.note("camera.clock_set", slot.session_id, detail)

    def _configure(self, slot: Slot, link: CameraLink) -> None:
        settings = dict(_pair(text) for text in self._bench.config.settings)
        link.configure(settings)
        self._bench.note("camera.configured", slot.session_id, dict(settings))

    def compare(self, slot: Slot, storage: Storage) -> bool:
        """Whether the storage is that of the camera that was spoken to, as far as it tells."""
        told = camera_name(storage.serial)
        return not told or told == self._docking(slot).camera

    def _doubt(self, slot: Slot, camera: str, identity: Identity) -> str:
        config = self._bench.config
        if not camera:
            return Code.NO_SERIAL
        if self._bench.rows.elsewhere(camera, slot.slot):
            return Code.DUPLICATE
        if config.only_fleet and not self._bench.officers.is_ours(camera):
            return Code.NOT_IN_FLEET
        if config.firmware and identity.firmware and identity.firmware not in config.firmware:
            _log.warning("firmware not known to be right", camera=camera, is_=identity.firmware)
        return ""

    def _docking(self, slot: Slot) -> Docking:
        docking = self._bench.rows.docking(slot.session_id)
        if docking is None:
            raise LookupError(f"docking {slot.session_id}: no row")
        return docking

    def _if_it_can(self, slot: Slot, what: str, do: Callable[[], object]) -> None:
        try:
            do()
        except Unsupported as error:
            _log.info("camera does not know this", slot=slot.slot, what=what, reason=error)


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip(), value.strip()
