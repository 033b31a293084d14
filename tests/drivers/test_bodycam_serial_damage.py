"""Replies of body cameras with any byte cut or flipped: no wrong fact in any dialect, no hang."""

import os
import select
import threading
import time
import tty

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core.clock import RealClock
from agent.core.errors import AuthRefused, SourceLost, Unsupported
from drivers import bodycam_serial as driver
from firmware_sim.bodycam_words import words_of

DIALECTS = ("line", "a", "b")
TIMEOUT_S = 0.03
NAMED = (SourceLost, AuthRefused, Unsupported)


class FarEnd:
    """A camera's line on which each reply is damaged in the same way, or one of them."""

    serial, model, firmware, officer, password, percent = "BC0001", "OP", "1.4", "0421", "", 41
    marks: tuple[str, ...] = ()

    def __init__(self, dialect):
        self.settings, self.orders = {}, []
        self.dialect, self.damage, self.only = dialect, lambda reply: reply, None
        self._replies = 0
        self._master, self._slave = os.openpty()
        for end in (self._master, self._slave):
            tty.setraw(end)
        self.port = os.ttyname(self._slave)
        self._words = words_of(self, dialect)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def be(self, damage, only):
        self._words, self._replies = words_of(self, self.dialect), 0
        self.damage, self.only = damage, only

    def utc_ns(self):
        return time.time_ns()

    def set_utc_ns(self, _):
        pass

    def set_local(self, _):
        pass

    def become_storage(self):
        pass

    def _serve(self):
        rest = b""
        while not self._stop.is_set():
            if not select.select([self._master], [], [], 0.02)[0]:
                continue
            answers, rest = self._words.take(rest + os.read(self._master, 4096))
            for answer in answers:
                is_hit = self.only is None or self.only == self._replies
                self._replies += 1
                os.write(self._master, self.damage(answer) if is_hit else answer)

    def close(self):
        self._stop.set()
        self._thread.join()
        os.close(self._master)
        os.close(self._slave)


@pytest.fixture(scope="module", params=DIALECTS)
def far(request):
    made = FarEnd(request.param)
    yield made
    made.close()


def flip(place, bit):
    def damage(reply):
        at = place % max(1, len(reply))
        return reply[:at] + bytes([reply[at] ^ (1 << bit)]) + reply[at + 1 :] if reply else reply

    return damage


def cut(place):
    return lambda reply: reply[: place % max(1, len(reply))]


@given(
    damage=st.one_of(
        st.builds(flip, st.integers(0, 120), st.integers(0, 7)), st.builds(cut, st.integers(0, 120))
    ),
    only=st.sampled_from([None, 0, 1, 2]),
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_reply_gives_the_right_fact_or_a_named_error(far, damage, only):
    far.be(damage, only)
    config = driver.Config(dialect=far.dialect, timeout_s=TIMEOUT_S)
    link = driver.open_link(far.port, config, RealClock())
    begun_s = time.monotonic()
    try:
        found = link.identify()
    except NAMED:
        found = None
    finally:
        link.close()
    assert time.monotonic() - begun_s < 10
    if found is not None and (only is not None or far.dialect == "line"):
        assert (found.serial, found.officer) == ("BC0001", "0421"), "damaged once, asked twice"
