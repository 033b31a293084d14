"""Any day of a box: whatever comes in whatever order, nothing that must stay is ever gone."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.core.clock import SimClock
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.vision.footage import Span
from agent.vision.hold import Word
from tests.vision.shelf import DAY_S, HOUR_S, Shelf

WORD = Word("case 7", "A. Weber")
SIZES = st.sampled_from([20_000, 3_000_000, 6_000_000])
PASSING = st.sampled_from([60, 5 * HOUR_S, DAY_S + 60, 2 * DAY_S, 20 * DAY_S])


class BoxDay(RuleBasedStateMachine):
    """Clips and recordings come, the centre signs or does not, people hold and pin."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="outpost-day-"))
        self.store = Store(self.folder / "outpost.db", DEVICE_MIGRATIONS, SimClock())
        self.store.open()
        self.shelf = Shelf(
            self.store, self.folder, max_gb=0.02, recordings_min_gb=0.01, quarantine_max_gb=0.0001
        )
        self.number = 0
        self.unsigned: dict[str, Path] = {}
        self.signed: dict[str, Path] = {}
        self.times: dict[str, int] = {}
        self.pinned: set[str] = set()
        self.holds: dict[str, tuple[int, int]] = {}
        self.segments: dict[Path, tuple[int, int]] = {}

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    @rule(size=SIZES, is_signed=st.booleans(), is_pinned=st.booleans())
    def a_clip_is_sealed(self, size: int, is_signed: bool, is_pinned: bool) -> None:
        self.number += 1
        name = f"c{self.number}"
        self.times[name] = self.shelf.clock.utc_ns()
        self.unsigned[name] = self.shelf.clip(name, size, "sealed")
        self.shelf.clock.advance(5)
        if is_signed:
            self._sign(name)
        if is_signed and is_pinned:
            self.shelf.holds.pin(name, WORD)
            self.pinned.add(name)

    @rule(count=st.integers(1, 12))
    def it_records(self, count: int) -> None:
        for _ in range(count):
            self.shelf.clock.advance(10)
            end_ns = self.shelf.clock.utc_ns()
            self.segments[self.shelf.segment(1_000_000)] = (end_ns - 10 * 10**9, end_ns)

    @precondition(lambda self: self.unsigned)
    @rule(data=st.data())
    def the_centre_signs(self, data) -> None:
        self._sign(data.draw(st.sampled_from(sorted(self.unsigned))))

    @precondition(lambda self: self.pinned)
    @rule(data=st.data())
    def somebody_unpins(self, data) -> None:
        name = data.draw(st.sampled_from(sorted(self.pinned)))
        self.shelf.holds.unpin(name, WORD)
        self.pinned.remove(name)

    @rule(length_s=st.integers(1, 300))
    def somebody_holds(self, length_s: int) -> None:
        now_ns = self.shelf.clock.utc_ns()
        span = (now_ns - length_s * 10**9, now_ns)
        self._drop_what_went()  # a hold keeps what there is
        self.holds[self.shelf.holds.place(Span("gate", *span), WORD)] = span

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def somebody_lets_go(self, data) -> None:
        hold_id = data.draw(st.sampled_from(sorted(self.holds)))
        self.shelf.holds.release(hold_id, WORD)
        del self.holds[hold_id]

    @rule(days=st.sampled_from([-400, 400]))
    def the_clock_leaps(self, days: int) -> None:
        self.shelf.clock.step_wall(days * DAY_S)
        self.shelf.keeper.tidy()
        self.shelf.loop.tidy()
        self.shelf.clock.step_wall(-days * DAY_S)

    @rule(seconds=PASSING)
    def time_passes(self, seconds: int) -> None:
        self.shelf.clock.advance(seconds)
        before = {name for name, path in self.signed.items() if path.exists()}
        ages = {name: self.shelf.clock.utc_ns() - self.times[name] for name in before}
        self.shelf.keeper.tidy()
        self.shelf.loop.tidy()
        for name in before:
            if not self.signed[name].exists():
                assert ages[name] >= 24 * HOUR_S * 10**9
                assert name not in self.pinned
        self.shelf.keeper.look()
        figures = self.shelf.keeper.figures()
        assert figures["headroom_bytes"] > 0 or figures["refused"]

    @invariant()
    def what_must_stay_is_there(self) -> None:
        for path in self.unsigned.values():
            assert (path / "clip-1.mp4").is_file()
        for name in self.pinned:
            assert (self.signed[name] / "clip-1.mp4").is_file()
        for path, span in self.segments.items():
            assert path.exists() or not self._is_held(span)

    @invariant()
    def rows_and_files_agree(self) -> None:
        for name, state in self.shelf.states().items():
            assert (self.folder / "clips" / name).exists() == (state != "deleted")

    def _sign(self, name: str) -> None:
        self.signed[name] = self.unsigned.pop(name)
        self.shelf.receipt(name)

    def _is_held(self, span: tuple[int, int]) -> bool:
        return any(span[0] <= held[1] and span[1] >= held[0] for held in self.holds.values())

    def _drop_what_went(self) -> None:
        self.segments = {path: span for path, span in self.segments.items() if path.exists()}


TestBoxDay = BoxDay.TestCase
TestBoxDay.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
