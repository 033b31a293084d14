"""Looks whether recordings play, and makes a playable copy of those that do not.

Media is never parsed in this process: see `agent/docking/confined.py`. A good recording leaves a
header by which later broken ones of the same camera model are rescued.
"""

import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from agent.core import log
from agent.core.clock import NS_PER_S
from agent.core.errors import IntegrityError
from agent.docking import headers, probe
from agent.docking.confined import Tick
from agent.docking.derivative import seal_rescued
from agent.docking.footage import RESCUE_SETTLED, Footage, FootageRows
from agent.docking.intake import PARTS, Custodian
from agent.docking.slotrows import SlotRows

LOOK_S = 0.5
HEADER_WAIT_NS = 24 * 3600 * NS_PER_S  # for a good recording of the same model
RETRY_NS = 60 * NS_PER_S

_log = log.get(__name__)


class _Stopped(Exception):
    """The agent ends: the work is done again at its next start."""


class Rescuer:
    """Worker; one file at a time."""

    name = "rescuer"

    def __init__(self, custodian: Custodian, rows: SlotRows, footage: FootageRows) -> None:
        self._who = custodian
        self._rows = rows
        self._footage = footage
        self._not_before_ns: dict[str, int] = {}

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """See `Worker.run`."""

        def tick() -> None:
            progress()
            if stop.is_set():
                raise _Stopped

        with suppress(_Stopped):
            while not self._who.clock.wait(stop, LOOK_S):
                tick()
                for item in self._footage.unprobed():
                    self._probe(item, tick)
                for item in self._footage.broken():
                    self._rescue(item, tick)

    def _probe(self, item: Footage, tick: Tick) -> None:
        path = self._file(item)
        if not item.is_video or path is None:
            self._footage.probed(item, is_playable=False, duration_ms=None)
            return
        found = probe.probe(path, tick)
        self._footage.probed(item, is_playable=found.is_playable, duration_ms=found.duration_ms)
        if not found.is_playable:
            _log.warning("recording does not play", footage_id=item.id, reason=found.why)
            return
        kept = headers.header_path(self._who.state_dir, *self._model(item), found)
        if not kept.exists() and (why := probe.keep_header(path, kept, item.sha256, tick)):
            _log.info("no header kept", footage_id=item.id, reason=why)

    def _rescue(self, item: Footage, tick: Tick) -> None:
        now_ns = self._who.clock.mono_ns()
        path = self._file(item)
        if path is None:
            self._footage.flag(item.id, RESCUE_SETTLED)
            return
        if now_ns < self._not_before_ns.get(item.id, 0):
            return
        self._not_before_ns[item.id] = now_ns + RETRY_NS
        copy_id = hashlib.sha256(f"rescued {item.id}".encode()).hexdigest()[:32]
        target = self._who.state_dir / PARTS / f"{copy_id}.mp4"
        known = headers.headers_of(self._who.state_dir, *self._model(item))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        facts = headers.rescue_by_any(path, known, target, tick)
        if facts.why:
            self._give_up(item, facts.why, is_final=bool(known) and not facts.may_pass)
            return
        folder = self._who.state_dir / item.path
        try:
            self._footage.rescued(item, seal_rescued(folder, target, facts, copy_id, self._who))
        except IntegrityError as error:
            self._give_up(item, str(error), is_final=True)
            return
        _log.info("recording rescued", footage_id=item.id, pictures=facts.pictures)

    def _give_up(self, item: Footage, why: str, *, is_final: bool) -> None:
        """Settle what cannot be rescued; without a header, or room, it waits a day for that."""
        age_ns = self._who.clock.utc_ns() - (item.sealed_utc_ns or 0)
        if is_final or age_ns >= HEADER_WAIT_NS:
            self._footage.flag(item.id, RESCUE_SETTLED)
            _log.warning("recording not rescued", footage_id=item.id, reason=why)

    def _file(self, item: Footage) -> Path | None:
        folder = self._who.state_dir / item.path
        return next(iter(sorted(folder.glob("recording*"))), None) if item.path else None

    def _model(self, item: Footage) -> tuple[str, str]:
        docking = self._rows.docking(item.session_id)
        return ("", "") if docking is None else (docking.model, docking.firmware)
