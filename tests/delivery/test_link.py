"""What a link says of connections that are cut off again and again."""

import threading

from agent.core.clock import SimClock
from agent.core.errors import UplinkDown
from agent.delivery.link import MOST_SHORT, SAME_NAME, SHORT_S, Link


class Session:
    def connect(self):
        pass

    def close(self):
        pass


def reasons(lasts_s, times):
    """The reason a link gives after each of so many sessions that lasted so long."""
    clock, stop, found = SimClock(), threading.Event(), []
    link = Link("uplink", Session, clock, 0.1)

    def serve(session):
        found.append(link.status.reason)
        if len(found) > times:
            stop.set()
            return
        clock.advance(lasts_s)
        raise UplinkDown("connection lost")

    told = []
    become = link._become

    def hear(state, reason):
        become(state, reason)
        if state == "waiting":
            told.append(reason)

    link._become = hear
    link.run(serve, stop, lambda: None)
    return told


def test_a_link_that_is_cut_off_again_and_again_says_what_it_may_be():
    told = reasons(SHORT_S / 2, MOST_SHORT + 1)
    assert told[: MOST_SHORT - 1] == ["connection lost"] * (MOST_SHORT - 1)
    assert told[MOST_SHORT - 1 :] == [f"connection lost{SAME_NAME}"] * 2


def test_sessions_that_last_say_nothing_of_the_kind():
    assert reasons(2 * SHORT_S, 2 * MOST_SHORT) == ["connection lost"] * 2 * MOST_SHORT
