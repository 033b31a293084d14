"""Numbers in any order, and any word of a device on which will not come: the notes stay true.

What the centre notes of a series are spans apart from each other; with what is stored they are all
numbers up to the highest one, whatever spans a device names, upwards, downwards or overlapping.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.spans import Piece, runs_of
from agent.evidence import gaprecord
from agent.receiver.gaps import MOST_GAPS
from tests.evidence.handover import DEVICE, SITE
from tests.fuzz.hostile import RUBBISH, examples, spoiled
from tests.fuzz.site import Site, message
from tests.fuzz.test_decoder import GOOD
from tests.fuzz.test_receiver_topics import Stage
from tests.receiver.rig import Device as Other

LANE = "telemetry"
NUMBERS = st.integers(1, 30)
HUGE = (1 << 53) - 1
LATER_BOOT = 1 << 40
SPANS = st.lists(
    st.tuples(NUMBERS, NUMBERS)
    | st.tuples(st.sampled_from((1, HUGE)), st.sampled_from((1, 5, HUGE))),
    min_size=1,
    max_size=5,
)
TOLD = st.lists(
    st.one_of(
        st.tuples(st.just("number"), NUMBERS),
        st.tuples(st.just("removed"), SPANS),
        st.tuples(st.just("record"), SPANS),
        st.tuples(st.just("birth"), NUMBERS),
    ),
    min_size=1,
    max_size=14,
)


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.close()


class Device:
    """Says numbers and spans of one boot."""

    def __init__(self, site, boot):
        self.site, self.boot = site, boot
        self.state_seq = 0
        self.numbers = set()
        self.last = 0

    def number(self, seq):
        self.numbers.add(seq)
        self.last = max(self.last, seq)
        self._say("sample", {"n": 1}, LANE, seq)

    def birth(self, last):
        """Begin again, and say how far this boot has counted."""
        self.last = max(self.last, last)
        self.state_seq += 1
        body = GOOD["birth"] | {"numbers": [{"boot": self.boot, "lane": LANE, "last": last}]}
        number = ("birth", self.boot, self.state_seq)
        envelope = self.site.box.device.envelope(
            number, "birth", body, lane="state", seq=self.state_seq, boot=LATER_BOOT + self.boot
        )
        self.site.centre.hear(message("birth", envelope))

    def removed(self, spans):
        items = [
            {"boot": self.boot, "lane": LANE, "from": first, "to": last} for first, last in spans
        ]
        body = {"state": "evicted", "since_utc_ms": 1, "detail": "", "removed": items}
        self._say_next("state/outbox", body)

    def record(self, spans):
        command = f"{self.state_seq:032x}"
        fields = {
            "sv": 1,
            "device": DEVICE,
            "command": command,
            "boot": self.boot,
            "lane": LANE,
            "from": 1,
            "to": HUGE,
            "utc_ms": 1,
            "waiting": 0,
            "missing": [{"from": first, "to": last, "reason": "taken"} for first, last in spans],
        }
        signed = gaprecord.sign(fields, self.site.box.device.key)
        body = {"command": command, "word": "replay", "state": "done", "detail": ""}
        self._say_next(f"command/{command}/status", body | {"record": signed})

    def _say_next(self, kind, body):
        self.state_seq += 1
        self._say(kind, body, "state", self.state_seq)

    def _say(self, kind, body, lane, seq):
        self.site.centre.hear(message(kind, self.envelope(kind, body, lane, seq)))

    def envelope(self, kind, body, lane, seq):
        number = (self.boot, lane, seq, len(self.numbers), self.state_seq)
        return self.site.box.device.envelope(number, kind, body, lane=lane, seq=seq, boot=self.boot)

    def gaps(self):
        with self.site.centre.store.reading() as connection:
            return [
                (first, last, row["state"])
                for row in connection.execute(
                    "SELECT * FROM gap WHERE boot = ? AND lane = ? ORDER BY first_seq",
                    (self.boot, LANE),
                )
                for first, last in runs_of(Piece(row["first_seq"], row["last_seq"], row["marks"]))
            ]


BOOTS = iter(range(1, 1 << 30))


@given(told=TOLD)
@examples(80)
def test_notes_and_numbers_are_all_there_is(site, told):
    device = Device(site, next(BOOTS))
    for what, value in told:
        refused = len(site.centre.rows("rejected"))
        getattr(device, what)(value)
        is_wrong = isinstance(value, list) and any(first > last for first, last in value)
        assert len(site.centre.rows("rejected")) == refused + is_wrong
        found = device.gaps()
        covered = sorted(device.numbers)
        for first, last, _ in found:
            assert first <= last
            covered += range(first, min(last, device.last) + 1)  # told ahead of its time
        assert sorted(covered) == list(range(1, device.last + 1))


def test_gaps_without_end_are_bounded(site):
    device = Device(site, next(BOOTS))
    device.number(HUGE)
    late = [device.envelope("sample", {"n": 1}, LANE, seq) for seq in range(2, 3 * MOST_GAPS, 2)]
    site.centre.hear(*(message("sample", envelope) for envelope in late))
    assert len(device.gaps()) <= MOST_GAPS
    for first in range(1 << 20, (1 << 20) + 64 * 150 * 2, 64 * 2):
        device.removed([(number, number) for number in range(first, first + 64 * 2, 2)])
    assert len(device.gaps()) <= MOST_GAPS
    assert len(site.centre.rows("message", DEVICE)) == 1 + len(late) + 150


@given(data=st.data(), is_rubbish=st.booleans())
@examples(60)
def test_answers_with_one_thing_wrong(tmp_path_factory, data, is_rubbish):
    stage = STAGES.get("one") or STAGES.setdefault("one", Stage(tmp_path_factory.mktemp("stage")))
    stage.number += 1
    command = f"{stage.number:032x}"
    fields = {
        "sv": 1,
        "device": DEVICE,
        "command": command,
        "boot": 1,
        "lane": LANE,
        "from": 1,
        "to": 9,
        "utc_ms": 1,
        "waiting": 0,
        "missing": [],
    }
    record = gaprecord.sign(fields, stage.device.key)
    body = {"command": command, "word": "replay", "state": "done", "detail": "", "record": record}
    good = stage.device.envelope(stage.number, f"command/{command}/status", body, lane="state")
    content = data.draw(RUBBISH if is_rubbish else spoiled(good))
    stage.said(f"command/{command}/status", content)
    stage.check()
    assert stage.serves()


STAGES = {}


@pytest.fixture(scope="module", autouse=True)
def _closed():
    yield
    for stage in STAGES.values():
        stage.site.close()


def test_a_device_with_gaps_without_end_does_not_keep_others_from_being_asked(site):
    (site.box.folder / "other").mkdir()
    other = Other(site.box.folder / "other", "cam-2")
    other.register(site.centre.config.devices_dir)
    device = Device(site, next(BOOTS))
    late = [device.envelope("sample", {"n": 1}, LANE, seq) for seq in range(2, 2000, 2)]
    site.centre.hear(*(message("sample", envelope) for envelope in late))
    site.clock.advance(10)
    envelope = other.envelope(9, "sample", {"n": 1}, lane=LANE, seq=9)
    site.centre.hear(message("sample", envelope, "cam-2"))
    site.clock.advance(100)
    said = [*site.centre.hear(), *site.centre.hear()]
    assert [topic for topic, _ in said if topic.startswith(f"outpost/1/{SITE}/cam-2/command/")]
