"""The second phase of a docking: what is on the camera is listed, copied, sealed, listed again."""

from collections.abc import Sequence

from agent.core import log
from agent.core.dock import Storage
from agent.core.errors import Unsupported
from agent.docking.bench import Copied, FilesBench, Pace, Surveyed, Tick
from agent.docking.codes import Code
from agent.docking.footage import Footage, Found
from agent.docking.slotrows import Docking

_log = log.get(__name__)

_READ_ERRORS, _CHANGES = "partial", {"grew", "shrank", "unstable", "begun_anew"}


class Gathering:
    """Brings the footage of one camera into the dock."""

    def __init__(self, bench: FilesBench) -> None:
        self._bench = bench

    def list(self, docking: Docking, storage: Storage, pace: Pace) -> Sequence[Footage]:
        """Compare what is on the camera with what is known of it; gives what has to be copied."""
        bench = self._bench
        survey = bench.ingest.survey(storage, docking.mark_names)
        pace.free_percent = survey.free_percent
        bench.rows.left_out(docking.id, survey.ignored)
        for code in survey.codes:
            bench.rows.quarantine(docking.id, code)
        self._match(docking, storage, survey)
        files = bench.footage.of_session(docking.id)
        pace.begin(
            [item.size_bytes for item in files],
            [item.size_bytes for item in files if item.here != "no"],
            bench.clock.mono_ns(),
        )
        return [item for item in files if item.here == "no"]

    def take(self, docking: Docking, storage: Storage, pace: Pace, tick: Tick) -> None:
        """Copy and seal, marked and newest files first; what went wrong with one is in its flags.

        Raises:
            SourceLost: the storage went.
            StorageError: our own disk refuses.
        """
        bench = self._bench

        def counted(count: int) -> None:
            pace.bytes_done += count
            tick(count)

        for item in bench.footage.of_session(docking.id):
            if item.here != "no":
                continue
            before = pace.bytes_done
            try:
                copied = bench.ingest.copy(storage, item, counted)
            except Unsupported as error:  # this one: the others are copied all the same
                bench.rows.quarantine(docking.id, Code.READ_ERRORS)
                _log.error("file cannot be opened", camera=docking.camera, reason=error)
                continue
            self._file(docking, item, copied)
            pace.bytes_done = before + item.size_bytes
            pace.files_done += 1

    def resume_wipe(self, docking: Docking, storage: Storage) -> None:
        """Settle a wipe that was cut short: what is still there was not wiped."""
        bench = self._bench
        wiping = [i for i in bench.footage.of_session(docking.id) if i.there == "wiping"]
        if not wiping:
            return
        names = {found.name for found in bench.ingest.survey(storage, ()).found}
        bench.footage.wiped([item for item in wiping if item.name not in names])
        bench.footage.seen(docking.id, [item.id for item in wiping if item.name in names])

    def _file(self, docking: Docking, item: Footage, copied: Copied) -> None:
        """Seal a copy, unless the very same bytes of this camera are sealed already."""
        bench = self._bench
        twin = bench.footage.twin(item, copied.hash.sha256)
        if twin is None:
            sealed = bench.ingest.seal(item, copied, docking)
            bench.footage.sealed(sealed)
            flags = sealed.flags
        else:
            flags = [*copied.flags, *(["came_back"] if _came_back(item, twin) else [])]
            bench.footage.same(item, twin, flags)
        bench.ingest.discard(item)
        if code := _code_of(flags):
            bench.rows.quarantine(docking.id, code)
        _log.info("footage sealed", camera=docking.camera, footage_id=item.id, flags=list(flags))

    def is_settled(self, docking: Docking, storage: Storage) -> bool:
        """List once more: whether all that is there now is sealed."""
        survey = self._bench.ingest.survey(storage, docking.mark_names)
        known = {_key(item) for item in self._bench.footage.of_session(docking.id)}
        return all(_key(item) in known for item in survey.found)

    def _match(self, docking: Docking, storage: Storage, survey: Surveyed) -> None:
        bench = self._bench
        known: dict[tuple[str, int, int], list[Footage]] = {}
        for item in bench.footage.on_camera(docking.camera):
            known.setdefault(_key(item), []).append(item)
        new: list[Found] = []
        seen: list[str] = []
        for found in survey.found:
            same = self._same(storage, known.get(_key(found), []))
            if same is None:
                new.append(found)
                continue
            known[_key(found)].remove(same)
            seen.append(same.id)
        missing = [item for items in known.values() for item in items]
        self._save_parts(docking, missing)
        bench.footage.gone(missing)
        bench.footage.seen(docking.id, seen)
        bench.footage.found(docking.id, docking.camera, new)

    def _same(self, storage: Storage, candidates: Sequence[Footage]) -> Footage | None:
        for item in candidates:
            if item.here == "no" or self._bench.ingest.is_same(storage, item):
                return item
        return None

    def _save_parts(self, docking: Docking, missing: Sequence[Footage]) -> None:
        """Seal what was copied of files that are not there any more."""
        for item in missing:
            if item.here != "no":
                continue
            sealed = self._bench.ingest.supersede(item, docking)
            if sealed is not None:
                self._bench.footage.sealed(sealed)
            self._bench.ingest.discard(item)
            self._bench.rows.quarantine(docking.id, Code.LOST_ON_CAMERA)


def _key(item: Footage | Found) -> tuple[str, int, int]:
    return item.name, item.size_bytes, item.mtime_ns


def _came_back(item: Footage, twin: Footage) -> bool:
    is_back = twin.there == "wiped" or "came_back" in twin.flag_list
    return is_back and twin.name == item.name


def _code_of(flags: Sequence[str]) -> str:
    if "came_back" in flags:
        return Code.WIPE_LIED
    if _READ_ERRORS in flags:
        return Code.READ_ERRORS
    return Code.CHANGES if _CHANGES & set(flags) else ""
