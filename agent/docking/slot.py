"""One slot of the dock: from an empty place to a camera that may be taken, and back.

EMPTY > DETECTED > IDENTIFYING > CLOCK > STORAGE > INVENTORY > COPYING > VERIFYING > SEALED >
UPLOADING > RECEIPTED > WIPING > CHECKED > READY; beside them UNKNOWN, QUARANTINE, ATTENTION with a
code, and PULLED. Each is written before what it says is done, and all of it may be done again: a
slot that was killed goes on from its row. A camera may be taken at any moment.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from agent.core import log
from agent.core.clock import NS_PER_S
from agent.core.dock import CameraLink, Identity, Seen, Storage
from agent.core.errors import (
    AuthRefused,
    ConfigError,
    DeviceBusy,
    IntegrityError,
    SourceLost,
    StorageError,
    Unsupported,
)
from agent.docking.bench import Bench, Pace
from agent.docking.codes import Code
from agent.docking.footage import Footage
from agent.docking.gathering import Gathering
from agent.docking.greeting import Greeting
from agent.docking.names import camera_name
from agent.docking.slotrows import Docking, Slot
from agent.docking.states import State
from agent.docking.wipe import Wiper

LOOK_S = 0.2
SETTLED_LOOK_NS = 2 * NS_PER_S  # between two looks at what only waits
RETRY_NS = 30 * NS_PER_S  # after something that may have gone away by itself
PROBE_WAIT_NS = 60 * NS_PER_S
MOST_TRIES = 3  # to speak to a camera, or to read its storage
MOST_ROUNDS = 3  # of listing again because there was more
RETRIED = frozenset({Code.SILENT, Code.DOCK_FULL, Code.NO_STORAGE})

_log = log.get(__name__)


class _Stopped(Exception):
    """The agent ends: the work goes on at its next start."""


class SlotWorker:
    """Worker of one slot."""

    def __init__(self, name: str, bench: Bench, wiper: Wiper) -> None:
        self.name = f"slot-{name}"
        self._slot_name = name
        self._bench = bench
        self._wiper = wiper
        self._greeting = Greeting(bench)
        self._gathering = Gathering(bench)
        self._pace = bench.paces.setdefault(name, Pace())
        self._slot = Slot(name)
        self._link: CameraLink | None = None
        self._storage: Storage | None = None
        self._stop = threading.Event()
        self._progress: Callable[[], None] = lambda: None
        self._tries = self._rounds = 0
        self._not_before_ns = 0
        self._asked_plug = ""  # the plugging-in that was told to become storage
        self._expects = ""  # what a camera comes back as, once it is away: storage, link
        self._expects_since_ns = 0
        self._is_two_phase = False
        self._steps: dict[State, Callable[[Seen], None]] = {
            State.DETECTED: self._detected,
            State.IDENTIFYING: self._identify,
            State.CLOCK: self._clock,
            State.STORAGE: self._await_storage,
            State.INVENTORY: self._inventory,
            State.COPYING: self._copy,
            State.VERIFYING: self._verify,
            State.SEALED: self._seal,
            State.UPLOADING: self._settle,
            State.RECEIPTED: self._settle,
            State.WIPING: self._wipe,
            State.CHECKED: self._check,
            State.READY: self._settle,
            State.QUARANTINE: self._settle,
            State.ATTENTION: self._again,
            State.UNKNOWN: self._again,
        }

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """See `Worker.run`."""
        self._stop, self._progress = stop, progress
        self.resume()
        try:
            while not stop.is_set():
                with suppress(_Stopped):
                    self.turn()
                progress()
                self._bench.clock.wait(stop, LOOK_S)
        finally:
            self._let_go()

    def resume(self) -> None:
        """Take up what was written last."""
        self._slot = self._bench.rows.slot(self._slot_name)

    def turn(self) -> None:
        """Do the next thing that is due."""
        seen = self._bench.dock.seen(self._slot_name)
        if self._slot.session_id and self._slot.state is not State.PULLED:
            if self._is_another(seen):
                self._taken()
                return
        elif seen is None:
            return
        else:
            self._tries = self._rounds = self._not_before_ns = 0
            self._expects, self._is_two_phase = "", False
            self._pace.reset()
            self._slot = self._bench.rows.begin(self._slot_name, seen.plug, seen.usb_id)
        if seen is not None and self._bench.clock.mono_ns() >= self._not_before_ns:
            self._guarded(seen)

    def _is_another(self, seen: Seen | None) -> bool:
        """Whether the camera was taken; one that comes back in its other form was not."""
        if seen is not None and seen.plug == self._slot.plug:
            return False
        if not self._expects or self._waited_ns() >= self._most_wait_ns:
            return True
        if seen is None:
            return False
        if self._expects == "storage":
            return False  # `_has_storage` looks at it
        return not seen.has_link or not self._is_back(seen)

    @property
    def _most_wait_ns(self) -> float:
        return self._bench.config.copy.storage_wait_s * NS_PER_S

    def _waited_ns(self) -> int:
        return self._bench.clock.mono_ns() - self._expects_since_ns

    def _expect(self, form: str) -> None:
        self._expects, self._expects_since_ns = form, self._bench.clock.mono_ns()

    def _is_back(self, seen: Seen) -> bool:
        """Whether a camera whose storage was let go of is spoken to again, and no other one."""
        try:
            serial = self._linked().identify().serial
        except (SourceLost, Unsupported, AuthRefused):
            self._let_go()
            return True  # not known yet: asked again by the next turn
        if camera_name(serial) != camera_name(self._docking().serial):
            return False
        self._expects = ""
        self._slot = self._bench.rows.put(replace(self._slot, plug=seen.plug))
        return True

    def _guarded(self, seen: Seen) -> None:
        try:
            self._steps[self._slot.state](seen)
        except (SourceLost, DeviceBusy) as error:
            self._let_go()
            self._failed(Code.SILENT, str(error))
        except (AuthRefused, ConfigError) as error:  # also a password file that cannot be read
            self._let_go()
            self._become(State.ATTENTION, Code.LOGIN_REFUSED, str(error))
        except IntegrityError as error:
            self._let_go()
            self._become(State.ATTENTION, Code.COPY_DAMAGED, str(error))
        except Unsupported as error:
            self._let_go()
            self._unsupported(str(error))
        except StorageError as error:
            self._let_go()
            self._become(State.ATTENTION, Code.DOCK_FULL, str(error))

    def _failed(self, code: str, reason: str) -> None:
        """Try again soon if the camera still hangs there; after some tries call somebody."""
        now = self._bench.dock.seen(self._slot_name)
        if now is None or now.plug != self._slot.plug:
            return  # the next turn sees to it
        self._tries += 1
        self._not_before_ns = self._bench.clock.mono_ns() + NS_PER_S
        _log.warning("camera does not answer", slot=self._slot_name, reason=reason)
        if self._tries >= MOST_TRIES:
            self._become(State.ATTENTION, code, reason)

    def _unsupported(self, reason: str) -> None:
        if self._slot.state in (State.DETECTED, State.IDENTIFYING):
            self._become(State.UNKNOWN, Code.UNKNOWN_DEVICE, reason)
        else:
            self._become(State.ATTENTION, Code.UNMOUNTABLE, reason)

    def _become(self, state: State, code: str = "", detail: str = "") -> None:
        now_ns = self._bench.clock.utc_ns()
        self._slot = self._bench.rows.put(
            replace(self._slot, state=state, code=code, since_utc_ns=now_ns, detail=detail)
        )
        if state is State.ATTENTION:
            self._not_before_ns = self._bench.clock.mono_ns() + RETRY_NS
            _log.error("slot needs a technician", slot=self._slot_name, code=code, reason=detail)

    def _taken(self) -> None:
        self._let_go()
        slot, docking = self._slot, self._docking()
        is_safe = docking.sealed_utc_ns is not None or not docking.camera
        early = State.EMPTY if is_safe else State.PULLED
        code = "" if is_safe else Code.TAKEN_EARLY
        officer = self._bench.officers.taken(self._slot_name, docking.camera)
        detail = {"camera": docking.camera, "slot": slot.slot, "state": str(slot.state)}
        kind = "camera.taken" if is_safe else "camera.taken_early"
        self._bench.note(kind, docking.id, {**detail, "officer": officer})
        self._slot = self._bench.rows.end(slot, early, code)
        _log.info(kind, camera=docking.camera, slot=slot.slot, state=str(slot.state))

    # The first phase.

    def _detected(self, _: Seen) -> None:
        self._become(State.IDENTIFYING)

    def _identify(self, seen: Seen) -> None:
        if seen.has_link:
            self._greeting.identify(self._slot, self._linked())
            self._become(State.CLOCK)
        elif seen.has_storage:
            self._greeting.known(self._slot, Identity(self._mounted().serial))
            self._become(State.INVENTORY)
        else:
            raise Unsupported(f"{seen.usb_id or 'a device'}; allowed: a camera or its storage")

    def _clock(self, seen: Seen) -> None:
        if seen.has_link:
            self._greeting.clock(self._slot, self._linked())
        self._become(State.STORAGE)

    def _await_storage(self, seen: Seen) -> None:
        if not self._has_storage(seen):
            return
        storage = self._mounted()
        if not self._greeting.compare(self._slot, storage):
            self._swapped(seen, storage)
        self._tries = 0
        self._become(State.INVENTORY)

    def _has_storage(self, seen: Seen) -> bool:
        """Have the camera come back as storage, without waiting for it here."""
        if seen.has_storage:
            self._expects = ""
            if seen.plug != self._slot.plug:
                self._slot = self._bench.rows.put(replace(self._slot, plug=seen.plug))
            return True
        if seen.has_link and self._asked_plug != seen.plug:
            try:
                self._linked().enter_storage()
            except Unsupported as error:
                self._become(State.ATTENTION, Code.NO_STORAGE, str(error))
                return False
            finally:
                self._let_go()
            self._asked_plug, self._is_two_phase = seen.plug, True
            self._expect("storage")
        if self._waited_ns() >= self._most_wait_ns:
            self._expects, self._asked_plug = "", ""
            self._slot = self._bench.rows.put(replace(self._slot, plug=seen.plug))
            self._become(State.ATTENTION, Code.NO_STORAGE, "it never came back as storage")
        return False

    def _swapped(self, seen: Seen, storage: Storage) -> None:
        """File what hangs here under its own name: it is not the camera that was spoken to."""
        first = self._docking()
        detail = {"told": first.serial, "storage": storage.serial, "slot": self._slot_name}
        self._bench.note("camera.swapped", first.id, detail)
        self._bench.rows.end(self._slot, State.EMPTY)
        self._slot = self._bench.rows.begin(self._slot_name, seen.plug, seen.usb_id)
        self._greeting.known(self._slot, Identity(storage.serial))
        self._bench.rows.quarantine(self._slot.session_id, Code.SWAPPED)
        self._is_two_phase = False  # on its line it would be somebody else again

    # The second phase.

    def _inventory(self, _: Seen) -> None:
        storage = self._mounted()
        self._gathering.list(self._docking(), storage, self._pace)
        self._become(State.COPYING)

    def _copy(self, _: Seen) -> None:
        self._gathering.take(self._docking(), self._mounted(), self._pace, self._tick)
        self._become(State.VERIFYING)

    def _verify(self, _: Seen) -> None:
        if not self._gathering.is_settled(self._docking(), self._mounted()):
            self._rounds += 1
            if self._rounds <= MOST_ROUNDS:
                self._become(State.INVENTORY)
                return
            self._bench.rows.quarantine(self._slot.session_id, Code.CHANGES)
        self._become(State.SEALED)

    def _seal(self, _: Seen) -> None:
        docking = self._docking()
        files = self._bench.footage.of_session(docking.id)
        if docking.sealed_utc_ns is None:
            if self._awaits_probes(files):
                return
            self._bench.ingest.seal_list(docking, files)
        self._let_go()
        self._become(State.UPLOADING)

    def _awaits_probes(self, files: Sequence[Footage]) -> bool:
        """Whether it is worth to wait with the list until it can tell what plays."""
        if not self._bench.config.copy.rescue:
            return False
        waited_ns = self._bench.clock.utc_ns() - self._slot.since_utc_ns
        is_patient = 0 <= waited_ns < PROBE_WAIT_NS
        return is_patient and any(
            item.is_video and item.is_playable is None and not item.same_as for item in files
        )

    # The third phase: the camera may be taken.

    def _settle(self, seen: Seen) -> None:
        """Follow the receipts, wipe what is due, keep an eye on the charge."""
        self._not_before_ns = self._bench.clock.mono_ns() + SETTLED_LOOK_NS
        self._bench.footage.settle()
        docking = self._docking()
        if self._wiper.due(docking):
            self._become(State.WIPING)
            self._not_before_ns = 0
            return
        if seen.has_link:
            self._look_at_battery()
        state = self._resting(docking)
        if state is not self._slot.state:
            self._become(state, docking.quarantine if state is State.QUARANTINE else "")

    def _resting(self, docking: Docking) -> State:
        files = self._bench.footage.of_session(docking.id)
        if any(item.here in ("no", "sealed") for item in files):
            return State.UPLOADING
        if docking.quarantine:
            return State.QUARANTINE
        return State.RECEIPTED if self._slot.state is State.UPLOADING else State.READY

    def _look_at_battery(self) -> None:
        try:
            self._bench.rows.battery(self._slot.session_id, self._linked().battery())
        except (SourceLost, Unsupported, AuthRefused) as error:
            self._let_go()
            self._not_before_ns = self._bench.clock.mono_ns() + RETRY_NS
            _log.info("charge not told", slot=self._slot_name, reason=error)

    def _wipe(self, seen: Seen) -> None:
        if not self._has_storage(seen):
            return
        docking, storage = self._docking(), self._mounted()
        if not self._greeting.compare(self._slot, storage):
            self._bench.rows.quarantine(docking.id, Code.SWAPPED)
            self._let_go()
            self._become(State.UPLOADING)
            return
        self._gathering.resume_wipe(docking, storage)
        outcome = self._wiper.wipe(docking, storage, self._tick)
        self._let_go_of_storage()
        if outcome.code:
            self._bench.rows.quarantine(docking.id, outcome.code)
        self._become(State.CHECKED)

    def _check(self, seen: Seen) -> None:
        """List once more what was deleted, on storage that was let go of in between."""
        if not self._has_storage(seen):
            return
        docking = self._docking()
        survey = self._bench.ingest.survey(self._mounted(), ())
        self._pace.free_percent = survey.free_percent
        names = {item.name for item in survey.found} | {row["name"] for row in survey.ignored}
        wiping = [
            item for item in self._bench.footage.of_session(docking.id) if item.there == "wiping"
        ]
        back = [item for item in wiping if item.name in names]
        self._bench.footage.wiped([item for item in wiping if item not in back])
        for item in back:
            self._bench.footage.flag(item.id, "came_back")
            self._bench.footage.kept(item, "it came back after it was deleted")
            self._bench.rows.quarantine(docking.id, Code.WIPE_LIED)
        self._let_go()
        self._become(State.UPLOADING)

    # When something is in the way.

    def _again(self, _: Seen) -> None:
        if self._slot.code not in RETRIED:
            self._not_before_ns = self._bench.clock.mono_ns() + RETRY_NS
            return
        self._tries = 0
        self._asked_plug, self._expects = "", ""
        is_known = self._docking().camera != ""
        self._become(State.STORAGE if is_known else State.IDENTIFYING)
        self._not_before_ns = 0

    def _tick(self, _: int) -> None:
        """Keep the watchdog fed, notice a pull at once, end when the agent does."""
        self._progress()
        if self._stop.is_set():
            raise _Stopped
        now = self._bench.dock.seen(self._slot_name)
        if now is None or now.plug != self._slot.plug:
            raise SourceLost(f"slot {self._slot_name}: the camera was taken")

    def _docking(self) -> Docking:
        docking = self._bench.rows.docking(self._slot.session_id)
        if docking is None:
            raise LookupError(f"slot {self._slot_name}: no row of {self._slot.session_id}")
        return docking

    def _linked(self) -> CameraLink:
        if self._link is None:
            self._link = self._bench.dock.link(self._slot_name)
        return self._link

    def _mounted(self) -> Storage:
        if self._storage is None:
            self._storage = self._bench.dock.storage(self._slot_name)
        return self._storage

    def _let_go_of_storage(self) -> None:
        if self._storage is not None:
            self._storage.close(eject=self._is_two_phase)
            self._storage = None
            self._asked_plug = ""
            if self._is_two_phase:
                self._expect("link")

    def _let_go(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        self._let_go_of_storage()
