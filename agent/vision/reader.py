"""One thread a camera: opens its small stream, decodes, looks for motion, offers the newest look.

Reconnects for ever with jittered back-off; a refused password is tried again only after a quarter
of an hour, so that the camera does not lock the account.
"""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from agent.core import log
from agent.core.clock import NS_PER_S, Clock
from agent.core.errors import AgentError, AuthRefused, Permanent, Transient
from agent.vision.decode import Decoder, Frame, Source, StreamTime
from agent.vision.motion import MotionResult
from agent.vision.pipeline import Pipeline

MAX_BACKOFF_S: Final = 3.0
PERMANENT_RETRY_S: Final = 900.0
HEALTHY_S: Final = 60.0  # a session so long starts the back-off anew

CONNECTING: Final = "connecting"
STREAMING: Final = "streaming"
LOST: Final = "lost"
AUTH_FAILED: Final = "auth_failed"
DISABLED: Final = "disabled"
ENDED: Final = "ended"

Say = Callable[[str, str], None]
"""Takes a camera's new state and its detail."""


@dataclass(frozen=True, slots=True)
class Look:
    """A picture that was looked at for motion."""

    frame: Frame
    motion: MotionResult


class Slot:
    """Holds one look; the newest wins, but motion that nobody has judged yet is not forgotten."""

    def __init__(self, fresh: threading.Event) -> None:
        self._fresh = fresh
        self._lock = threading.Lock()
        self._look: Look | None = None

    def put(self, look: Look) -> None:
        """Offer a look in place of the one that waits."""
        with self._lock:
            waiting = self._look
            if waiting is not None and waiting.motion.is_moving and not look.motion.is_moving:
                look = Look(look.frame, replace(waiting.motion, picture=look.motion.picture))
            self._look = look
        self._fresh.set()

    def take(self) -> Look | None:
        """Take the waiting look, if there is one."""
        with self._lock:
            look, self._look = self._look, None
            return look


class Reader:
    """Reads one camera until told to stop, or to the end of its file.

    Args:
        build: gives a fresh source; does no I/O.
        pipeline: its `watch` is called here.
        slot: takes the looks.
        say: told of every change of state.
        clock: waiting, and the time that decoding takes.
        key_frames_only: for a camera without a small stream.
    """

    def __init__(
        self,
        build: Callable[[], Source],
        pipeline: Pipeline,
        slot: Slot,
        say: Say,
        clock: Clock,
        *,
        key_frames_only: bool,
    ) -> None:
        self._build = build
        self._pipeline = pipeline
        self._slot = slot
        self._say = say
        self._clock = clock
        self._key_frames_only = key_frames_only
        self._times = StreamTime()
        self._source: Source | None = None
        self._state = ""
        self._dice = random.Random(clock.new_id())  # noqa: S311 - spreads reconnects, no secret
        self.frames = 0
        self.decode_ns = 0
        self.last_frame_mono_ns = clock.mono_ns()
        self.is_over = False

    def run(self, stop: threading.Event) -> None:
        """Read session after session; returns when `stop` is set or a file is at its end."""
        failures = 0
        while not stop.is_set():
            begun_ns = self._clock.mono_ns()
            try:
                self._session(stop)
                if not stop.is_set():
                    self._tell(ENDED, "end of the stream")
                break
            except AgentError as error:
                lasted_s = (self._clock.mono_ns() - begun_ns) / NS_PER_S
                failures = 1 if lasted_s > HEALTHY_S else failures + 1
                self._clock.wait(stop, self._pause_s(error, failures))
        self.is_over = True

    def close(self) -> None:
        """Let go of the source, from any thread: `run` then ends within two seconds."""
        source = self._source
        if source is not None:
            source.close()

    def _session(self, stop: threading.Event) -> None:
        self._tell(CONNECTING, "")
        self._times.restart()
        source = self._source = self._build()
        try:
            decoder = Decoder(source.open(), self._times, key_frames_only=self._key_frames_only)
            for packet in source.packets():
                begun_ns = self._clock.mono_ns()
                frames = decoder.decode(packet)
                self.decode_ns += self._clock.mono_ns() - begun_ns
                self._offer(frames)
                if stop.is_set():
                    return
            self._offer(decoder.flush())
        finally:
            source.close()

    def _offer(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._tell(STREAMING, "")
            self.frames += 1
            self.last_frame_mono_ns = self._clock.mono_ns()
            motion = self._pipeline.watch(frame)
            if motion is not None:
                self._slot.put(Look(frame, motion))

    def _pause_s(self, error: AgentError, failures: int) -> float:
        """Tell why the session ended and give the wait; raises what is no fault of the source."""
        if isinstance(error, Transient):
            self._tell(LOST, str(error))
            return self._dice.uniform(0, min(MAX_BACKOFF_S, 2.0**failures))
        if not isinstance(error, Permanent):
            raise error
        self._tell(AUTH_FAILED if isinstance(error, AuthRefused) else DISABLED, str(error))
        return PERMANENT_RETRY_S

    def _tell(self, state: str, detail: str) -> None:
        if state != self._state:
            self._state = state
            self._say(state, log.redact(detail))
