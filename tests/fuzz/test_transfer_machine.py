"""One device, one centre, and a wire that loses, repeats, delays, reorders and spoils.

Whatever it does: a file is at the centre with the hash it was sealed with, or still on the device;
nothing is receipted that is not stored; and when the wire behaves again, everything arrives.
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

from agent.delivery.session import Lost
from tests.fuzz.hostile import RUBBISH, examples
from tests.fuzz.site import Site, is_stored, sha256

MOST_ROUNDS = 400
POSITIONS = st.integers(0, 1 << 16)


class Wire(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.site = Site(Path(self.folder.name))
        self.box, self.centre = self.site.box, self.site.centre
        self.up, self.down = [], []
        self.box.seal(clip_mp4=b"video" * 60_000, snapshot_jpg=b"picture" * 900, path_json=b"")
        self.box.seal(clip_mp4=b"more" * 1000)
        self.box.start()

    # What the two sides do.

    @rule()
    def the_device_has_a_turn(self):
        self.up += self.box.run.step()

    @rule(seconds=st.sampled_from((1, 6, 40, 400)))
    def time_passes(self, seconds):
        self.site.clock.advance(seconds)
        self.up += self.box.run.step()

    @rule()
    def the_device_loses_its_connection(self):
        self.up += self.box.run.step(Lost("the test cut it"))

    @rule()
    def the_device_starts_again(self):
        self.box.restart()

    @rule()
    def the_centre_starts_again(self):
        self.centre.restart()

    # What the wire does.

    @precondition(lambda self: self.up)
    @rule(at=POSITIONS, is_kept=st.booleans())
    def it_brings_one_to_the_centre(self, at, is_kept):
        self.down += self.centre.hear(self._picked(self.up, at, is_kept=is_kept))

    @rule()
    def it_brings_all_there_and_back_in_order(self):
        messages, self.up = self.up, []
        answers, self.down = [*self.down, *self.centre.hear(*messages)], []
        self.up += self.box.run.hear(*answers)

    @precondition(lambda self: self.down)
    @rule(at=POSITIONS, is_kept=st.booleans())
    def it_brings_one_to_the_device(self, at, is_kept):
        self.up += self.box.run.hear(self._picked(self.down, at, is_kept=is_kept))

    @precondition(lambda self: self.up)
    @rule(at=POSITIONS)
    def it_loses_one_on_the_way_up(self, at):
        self._picked(self.up, at)

    @precondition(lambda self: self.down)
    @rule(at=POSITIONS)
    def it_loses_one_on_the_way_down(self, at):
        self._picked(self.down, at)

    @precondition(lambda self: self.up)
    @rule(at=POSITIONS, content=RUBBISH, is_kept=st.booleans())
    def it_spoils_one_on_the_way_up(self, at, content, is_kept):
        topic, _ = self._picked(self.up, at, is_kept=is_kept)
        self.down += self.centre.hear((topic, content))

    @precondition(lambda self: _chunks(self.up))
    @rule(at=POSITIONS)
    def it_changes_the_bytes_of_a_chunk(self, at):
        topic, content = self._picked(_chunks(self.up), at)
        self.up.remove((topic, content))
        at %= len(content)
        changed = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        self.down += self.centre.hear((topic, changed))

    @precondition(lambda self: self.down)
    @rule(at=POSITIONS, content=RUBBISH)
    def it_spoils_one_on_the_way_down(self, at, content):
        topic, _ = self._picked(self.down, at, is_kept=True)
        self.up += self.box.run.hear((topic, content))

    @precondition(lambda self: len(self.down) > 1)
    @rule(at=POSITIONS, other=POSITIONS)
    def it_says_one_thing_on_the_topic_of_another(self, at, other):
        topic, _ = self._picked(self.down, at, is_kept=True)
        _, content = self._picked(self.down, other, is_kept=True)
        self.up += self.box.run.hear((topic, content))

    # What holds.

    @invariant()
    def nothing_is_lost_and_nothing_is_claimed(self):
        for fid, entry in self.box.files.items():
            if self.box.state(fid) == "receipted":
                assert is_stored(self.centre, entry)
            assert sha256(entry[0].read_bytes()) == sha256(entry[1])

    def teardown(self):
        try:
            self._behave()
        finally:
            self.site.close()
            self.folder.cleanup()

    def _behave(self):
        """Deliver everything from now on: all files must arrive."""
        for _ in range(MOST_ROUNDS):
            states = {self.box.state(fid) for fid in self.box.files}
            if states == {"receipted"}:
                return
            messages, self.up = self.up, []
            answers = self.down + self.centre.hear(*messages)
            self.down = []
            self.site.clock.advance(20)
            self.up += self.box.run.hear(*answers)
        raise AssertionError(f"not delivered by a wire that behaves: {states}")

    def _picked(self, pile, at, *, is_kept=False):
        at %= len(pile)
        return pile[at] if is_kept else pile.pop(at)


def _chunks(pile):
    return [(topic, content) for topic, content in pile if topic.rsplit("/", 1)[1].isdigit()]


def test_every_file_arrives_or_stays_whatever_the_wire_does():
    run_state_machine_as_test(Wire, settings=examples(12, stateful_step_count=30))
