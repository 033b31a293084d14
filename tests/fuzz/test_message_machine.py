"""Messages of one device over a wire that loses, repeats, delays, reorders and spoils.

Whatever it does: an event is at the centre once, or still in the outbox; nothing leaves on less
than a receipt; and when the wire behaves again, every event arrives exactly once.
"""

import tempfile
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent.core.model import Lane, Message
from agent.delivery.session import Lost
from tests.delivery.test_outbox import EVENT
from tests.fuzz.hostile import RUBBISH, examples
from tests.fuzz.site import Site
from tests.receiver.rig import clip_id

MOST_ROUNDS = 200
POSITIONS = st.integers(0, 1 << 16)


class Wire(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.site = Site(Path(self.folder.name))
        self.box, self.centre = self.site.box, self.site.centre
        self.up, self.down, self.made = [], [], set()
        self.box.start_uplink()

    # What the two sides do.

    @rule(count=st.integers(1, 30))
    def the_device_has_events(self, count):
        for _ in range(count):
            body = EVENT | {"event_id": clip_id(len(self.made))}
            message = Message(Lane.ALARM, "event/zone_enter", body, needs_receipt=True)
            self.made.add(self.box.outbox.put(message))

    @rule()
    def the_device_tells_its_state(self):
        body = {"state": "streaming", "since_utc_ms": 1, "detail": ""}
        self.box.outbox.put(Message(Lane.STATE, "state/west", body, is_retained=True))

    @rule(seconds=st.sampled_from((0, 1, 6, 40, 400)))
    def time_passes(self, seconds):
        self.site.clock.advance(seconds)
        self.up += self.box.run.step() + self.box.run.step()

    @rule(knows=st.booleans())
    def the_connection_is_lost(self, knows):
        self.box.run.line.session_present = knows
        self.up += self.box.run.step(Lost("the test cut it"))

    @rule(code=st.sampled_from((0, 0, 0x10, 0x97, 0x80, 0x87)))
    def the_broker_answers_otherwise(self, code):
        self.box.run.line.code = code

    @rule()
    def the_device_starts_again(self):
        self.box.run.close()
        self.box.start_uplink()

    @rule()
    def the_centre_starts_again(self):
        self.centre.restart()

    # What the wire does.

    @rule()
    def it_brings_all_there_and_back_in_order(self):
        messages, self.up = self.up, []
        answers, self.down = [*self.down, *self.centre.hear(*messages)], []
        self.up += self.box.run.hear(*answers)

    @precondition(lambda self: self.up)
    @rule(at=POSITIONS, is_kept=st.booleans())
    def it_brings_one_to_the_centre(self, at, is_kept):
        self.down += self.centre.hear(self._picked(self.up, at, is_kept=is_kept))

    @precondition(lambda self: self.down)
    @rule(at=POSITIONS, is_kept=st.booleans())
    def it_brings_one_to_the_device(self, at, is_kept):
        self.up += self.box.run.hear(self._picked(self.down, at, is_kept=is_kept))

    @precondition(lambda self: self.up)
    @rule(at=POSITIONS)
    def it_loses_one_on_the_way_up(self, at):
        self._picked(self.up, at)

    @precondition(lambda self: self.down)
    @rule()
    def it_loses_all_on_the_way_down(self):
        self.down = []

    @precondition(lambda self: self.up)
    @rule(at=POSITIONS, content=RUBBISH, is_kept=st.booleans())
    def it_spoils_one_on_the_way_up(self, at, content, is_kept):
        topic, _ = self._picked(self.up, at, is_kept=is_kept)
        self.down += self.centre.hear((topic, content))

    @precondition(lambda self: self.down)
    @rule(at=POSITIONS, content=RUBBISH, is_kept=st.booleans())
    def it_spoils_one_on_the_way_down(self, at, content, is_kept):
        topic, _ = self._picked(self.down, at, is_kept=is_kept)
        self.up += self.box.run.hear((topic, content))

    # What holds.

    @invariant()
    def nothing_is_lost_and_nothing_stands_twice(self):
        stored = [row[1] for row in self.centre.rows("message")]
        assert len(stored) == len(set(stored))
        assert self.made <= self._waiting() | set(stored)

    def teardown(self):
        try:
            self._behave()
        finally:
            self.site.close()
            self.folder.cleanup()

    def _behave(self):
        """Deliver everything from now on: every event must arrive, and be let go of."""
        self.box.run.line.code = 0
        self.the_device_starts_again()  # what was set aside is tried again at a start
        for _ in range(MOST_ROUNDS):
            if not self._waiting() & self.made:
                break
            messages, self.up = self.up, []
            answers, self.down = [*self.down, *self.centre.hear(*messages)], []
            self.site.clock.advance(20)
            self.up += self.box.run.hear(*answers)
        assert not self._waiting() & self.made
        assert len(self.centre.rows("event")) == len(self.made)

    def _waiting(self):
        with self.box.store.reading() as connection:
            return {row[0] for row in connection.execute("SELECT message_id FROM outbox")}

    def _picked(self, pile, at, *, is_kept=False):
        at %= len(pile)
        return pile[at] if is_kept else pile.pop(at)


def test_every_event_arrives_once_or_stays_whatever_the_wire_does():
    run_state_machine_as_test(Wire, settings=examples(12, stateful_step_count=30))
