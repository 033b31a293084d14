"""Wiping a camera: file by file, each only when everything says that it is safe elsewhere.

The conditions, all of them: the centre's receipt for its very bytes, signed by a pinned key and
for enough copies (or, where a site allows it in a long outage, a second disk); our own sealed copy
still hashing to what was signed; the camera's file still the one that was copied; no quarantine, no
rescue under way, no hold; old enough. Nothing is ever formatted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.core import log
from agent.core.clock import NS_PER_S, Clock
from agent.core.dock import Storage
from agent.core.errors import IntegrityError, ReceiptInvalid, StorageError
from agent.docking.bench import Tick
from agent.docking.codes import Code
from agent.docking.config import WipeConfig
from agent.docking.footage import Footage, FootageRows
from agent.docking.secondcopy import SecondCopy
from agent.docking.slotrows import Docking

HOUR_NS = 3600 * NS_PER_S
NEVER = frozenset({"other", "partial", "superseded", "grew", "shrank", "unstable", "came_back"})

_log = log.get(__name__)

Receipts = Callable[[Footage], None]
"""Checks the centre's receipts for a file once more; IntegrityError names what lacks."""

Compare = Callable[[Storage, Footage, Tick], None]
"""Reads a file of the camera again; IntegrityError if it is not the one that was copied."""

Remove = Callable[[Storage, str], None]
"""Deletes one file by its name as data, durably; OSError."""


@dataclass(frozen=True, slots=True)
class Checks:
    """What is asked before a file goes."""

    receipts: Receipts
    sealed: Callable[[Footage, Tick], None]  # our own copy, hashed again; IntegrityError
    compare: Compare
    is_held: Callable[[Footage], bool]
    second: SecondCopy
    free_percent: Callable[[str], float | None]  # of the medium in a slot, as it was seen last
    remove: Remove


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    wiped: list[Footage]
    code: str = ""


class Wiper:
    """Decides and deletes."""

    def __init__(
        self,
        config: WipeConfig,
        rows: FootageRows,
        checks: Checks,
        clock: Clock,
        *,
        awaits_rescue: bool,
    ) -> None:
        self._config = config
        self._awaits_rescue = awaits_rescue
        self._rows = rows
        self._checks = checks
        self._clock = clock

    def due(self, docking: Docking) -> Sequence[Footage]:
        """Give the files that may be due, by what the rows say alone."""
        if not self._config.enabled or docking.quarantine:
            return ()
        files = self._rows.of_session(docking.id)
        free_percent = self._checks.free_percent(docking.slot)
        is_open = self._checks.second.is_open(docking, free_percent)
        return [item for item in files if self._is_due(item, is_open=is_open)]

    def wipe(self, docking: Docking, storage: Storage, tick: Tick) -> Outcome:
        """Delete what may go, one after the other, each written down before.

        Raises:
            SourceLost: the storage went.
        """
        outcome = Outcome([])
        cleared: list[Footage] = []
        for item in self.due(docking):
            code, reason = self._objection(item, storage, tick)
            if reason:
                outcome.code = outcome.code or code
                self._rows.kept(item, reason)
                _log.error("not wiped", footage_id=item.id, reason=reason)
                continue
            cleared.append(item)
        if cleared:
            self._delete(storage, cleared, outcome)
        return outcome

    def _is_due(self, item: Footage, *, is_open: bool) -> bool:
        flags = set(item.flag_list)
        is_safe = item.here == "receipted" or (is_open and item.here == "sealed")
        if not is_safe or item.there != "yes" or item.kept_because:
            return False
        if flags & NEVER or (self._awaits_rescue and _is_open(item, flags)):
            return False
        age_ns = self._clock.utc_ns() - (item.sealed_utc_ns or 0)
        return age_ns >= self._config.min_hold_h * HOUR_NS

    def _objection(self, item: Footage, storage: Storage, tick: Tick) -> tuple[str, str]:
        """Give the first thing that speaks against deleting a file: a code, if any, and words."""
        checks = self._checks
        if checks.is_held(item):
            return "", "it is held"
        code: str = ""
        try:
            if item.here == "receipted":
                checks.receipts(item)
            else:
                checks.second.ensure(item)
            code = Code.COPY_DAMAGED
            checks.sealed(item, tick)
            code = Code.CHANGED
            checks.compare(storage, item, tick)
        except ReceiptInvalid as error:
            return Code.RECEIPT_WRONG, str(error)
        except IntegrityError as error:
            return code, str(error)
        return "", ""

    def _delete(self, storage: Storage, cleared: Sequence[Footage], outcome: Outcome) -> None:
        try:
            with storage.writable():
                for item in cleared:
                    self._rows.wiping(item)
                    self._checks.remove(storage, item.name)
                    outcome.wiped.append(item)
        except (StorageError, PermissionError) as error:
            self._refused(cleared, outcome, error)
        except OSError as error:
            if not storage.root.is_dir():
                raise
            self._refused(cleared, outcome, error)

    def _refused(self, cleared: Sequence[Footage], outcome: Outcome, error: Exception) -> None:
        outcome.code = Code.WIPE_REFUSED
        for item in cleared:
            if item not in outcome.wiped:
                self._rows.kept(item, f"the camera refuses: {error}")
        _log.error("camera does not let files be deleted", reason=error)


def _is_open(item: Footage, flags: set[str]) -> bool:
    """Whether a rescue may still want the camera's file."""
    if not item.is_video or item.same_as:
        return False
    return item.is_playable is None or (not item.is_playable and "rescue_settled" not in flags)
