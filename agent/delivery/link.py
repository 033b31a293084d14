"""Stay connected: connect, serve, wait a random while, again; shared by uplink and transfers.

Full jitter: the wait before attempt n is drawn from [0, min(limit, 2^n)] s, so that a thousand
boxes do not come back at the same instant. The count starts again only after a session that
lasted, or a broker that accepts and drops would be hammered.
"""

import queue
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent.core import log
from agent.core.clock import NS_PER_S, Clock
from agent.core.errors import AgentError, AuthRefused, UplinkDown
from agent.delivery.session import Session

STEADY_S = 60.0
SHORT_S = 10.0  # a session that is over so soon
MOST_SHORT = 3  # in a row, before we say what it may be: few brokers tell of a takeover
SAME_NAME = "; cut off again and again: does another agent use this name?"
STEP_S = 0.5  # how often a wait looks up
_MOST_DOUBLINGS = 16

_log = log.get(__name__)

SessionFactory = Callable[[], Session]


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """State of one connection to the broker, for people."""

    state: str  # connecting, connected, waiting, refused, stopped
    since_utc_ns: int
    sessions: int
    reason: str = ""


class Backoff:
    """Random waits that grow; not for two threads."""

    def __init__(self, most_s: float, dice: random.Random | None = None) -> None:
        self._most_s = most_s
        self._dice = dice or random.Random()  # noqa: S311 - jitter, no secret
        self._failures = 0

    def next_s(self) -> float:
        """Give the next wait."""
        self._failures = min(self._failures + 1, _MOST_DOUBLINGS)
        return self._dice.uniform(0.0, min(self._most_s, 2.0**self._failures))

    def reset(self) -> None:
        """Forget the failures."""
        self._failures = 0


class Link:
    """Keeps a session up and hands it to `serve`, until told to stop."""

    def __init__(
        self, name: str, factory: SessionFactory, clock: Clock, reconnect_max_s: float
    ) -> None:
        self._name = name
        self._factory = factory
        self._clock = clock
        self._backoff = Backoff(reconnect_max_s)
        self._status = LinkStatus("stopped", 0, 0)
        self._short = 0  # sessions in a row that were soon over

    @property
    def status(self) -> LinkStatus:
        """The state now; safe from any thread."""
        return self._status

    def run(
        self,
        serve: Callable[[Session], None],
        stop: threading.Event,
        progress: Callable[[], None],
    ) -> None:
        """Connect and serve until `stop`; `serve` ends by UplinkDown or by `stop`."""
        while not stop.is_set():
            begun_ns = self._clock.mono_ns()
            try:
                self._attempt(serve, stop, progress)
            except (UplinkDown, AuthRefused) as error:
                lasted_ns = self._clock.mono_ns() - begun_ns
                if lasted_ns > STEADY_S * NS_PER_S:
                    self._backoff.reset()
                is_refused = isinstance(error, AuthRefused)
                hint = self._hint(lasted_ns)
                self._become("refused" if is_refused else "waiting", f"{error}{hint}")
                self._wait(stop, progress)
        self._become("stopped", "")

    def _hint(self, lasted_ns: int) -> str:
        is_short = self._status.state == "connected" and lasted_ns < SHORT_S * NS_PER_S
        self._short = self._short + 1 if is_short else 0
        return SAME_NAME if self._short >= MOST_SHORT else ""

    def _attempt(
        self,
        serve: Callable[[Session], None],
        stop: threading.Event,
        progress: Callable[[], None],
    ) -> None:
        if not self._status.reason:
            self._become("connecting", "")
        session = self._connect(stop, progress)
        if session is None:
            return
        try:
            self._become("connected", "")
            serve(session)
        finally:
            session.close()

    def _connect(self, stop: threading.Event, progress: Callable[[], None]) -> Session | None:
        """Connect in a thread of its own: a name server or a handshake may hang for long."""
        attempt = _Attempt(self._factory())
        threading.Thread(target=attempt.run, name=f"{self._name}-connect", daemon=True).start()
        while not stop.is_set():
            try:
                result = attempt.result.get(timeout=STEP_S)
            except queue.Empty:
                progress()
                continue
            if isinstance(result, AgentError):
                raise result
            return attempt.session
        attempt.abandon()
        return None

    def _wait(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        until_ns = self._clock.mono_ns() + int(self._backoff.next_s() * NS_PER_S)
        while (left_ns := until_ns - self._clock.mono_ns()) > 0:
            progress()
            if self._clock.wait(stop, min(STEP_S, left_ns / NS_PER_S)):
                return

    def _become(self, state: str, reason: str) -> None:
        before = self._status
        if (before.state, before.reason) == (state, reason):
            return
        sessions = before.sessions + (state == "connected")
        self._status = LinkStatus(state, self._clock.utc_ns(), sessions, reason)
        if state == "connected":
            _log.info("connected", link=self._name, session=sessions)
        elif reason:
            _log.warning("not connected", link=self._name, state=state, reason=reason)


class _Attempt:
    """One connect in another thread; whoever comes second closes what nobody wants."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.result: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_abandoned = False
        self._is_over = False

    def run(self) -> None:
        outcome: AgentError | None = UplinkDown("connect ended unexpectedly")
        try:
            self.session.connect()
            outcome = None
        except (UplinkDown, AuthRefused) as error:
            outcome = error
        finally:
            with self._lock:
                self._is_over = True
                if self._is_abandoned:
                    self.session.close()
            self.result.put(outcome)

    def abandon(self) -> None:
        with self._lock:
            self._is_abandoned = True
            if self._is_over:
                self.session.close()
