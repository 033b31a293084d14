"""A worker and the test take turns: the worker runs only while the test waits for it.

The worker is the real one, in its thread, on a session of the test's own; nothing happens by
itself, so that the same examples give the same course of things every time.
"""

import threading
import time
from collections import deque

from agent.delivery.session import Acked, Received

WAIT_S = 30.0


class Line:
    """The far end of a session: `poll` hands the turn to the test and waits to get it back."""

    receive_maximum = 20
    max_packet_bytes = 1 << 20
    session_present = True
    is_paced = False

    def __init__(self):
        self.sent = []
        self.code = 0
        self.arrived = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.events = []
        self.connects = 0
        self._acks = []
        self._token = 0

    def connect(self):
        self.connects += 1

    def pace(self, bytes_per_s):
        pass

    def subscribe(self, topics):
        pass

    def publish(self, topic, payload, **_options):
        self._token += 1
        self.sent.append((topic, payload))
        self._acks.append(Acked(self._token, self.code))
        return self._token

    def poll(self, _timeout_s):
        self.arrived.release()
        self.go.acquire()
        events, self.events = [*self._acks, *self.events], []
        self._acks = []
        return events

    def close(self):
        self._acks = []


class Lockstep:
    """One worker on one line."""

    def __init__(self, make, clock):
        self.line = Line()
        self.clock = clock
        self.error = None
        self.worker = make(lambda: self.line)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._arrival()

    def step(self, *events):
        """Let the worker have these events, and give what it said until it asked for more."""
        self.line.events += events
        self.clock.advance(0.25)
        self.line.go.release()
        self._arrival()
        said, self.line.sent = self.line.sent, []
        return said

    def hear(self, *messages):
        """Let it hear messages, then let it answer them."""
        said = self.step(*(Received(topic, payload) for topic, payload in messages))
        return said + self.step()

    def settle(self, is_busy):
        """Go on while something is under way in it."""
        said, until_s = deque(), time.monotonic() + WAIT_S
        while is_busy() and time.monotonic() < until_s:
            said += self.step()
            time.sleep(0.0005)
        assert not is_busy()
        return list(said)

    def close(self):
        self._stop.set()
        self.line.go.release()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), "the worker did not stop"
        self._tell()

    def _run(self):
        try:
            self.worker.run(self._stop, lambda: None)
        except BaseException as error:  # noqa: BLE001 - shown by the test
            self.error = error
        finally:
            self.line.arrived.release()

    def _arrival(self):
        assert self.line.arrived.acquire(timeout=WAIT_S), "the worker hangs"
        self._tell()

    def _tell(self):
        if self.error is not None:
            raise self.error
