"""Which batches are under way, and whether to make more: the centre's receipts decide.

The first batch goes alone. Once the centre has signed for one, many may be under way. Without a
receipt in time one goes alone again, ever more rarely: a centre that has signed before is away or
full, and single rows would be forgotten on the broker's word. One that never has, an hour of that,
or a broker that has nobody to give it to: rows go singly and a batch is tried later. Every instant
is a parameter, in monotonic nanoseconds.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain

from agent.core import log
from agent.core.clock import NS_PER_S
from agent.core.errors import ConfigError
from agent.core.model import Row
from agent.delivery.batch import LEAST_ROWS, MOST_ROWS, Batch, Compress, compressor, groups, pack
from agent.delivery.config import DeliveryConfig

MOST_FLYING = 4  # not yet acknowledged by the broker
MOST_FLYING_BYTES = 32 * 1024  # with less, one more may go: an alarm stands behind these
MOST_OPEN = 16  # without a receipt
MOST_LOSSES = 3
MOST_MISSES = 15  # about an hour with the usual time limit
MOST_WAIT_NS = 300 * NS_PER_S  # for a receipt
LOOK_S = 1.0  # rows grow old without any commit
FIRST_REST_S = 60.0
MOST_REST_S = 3600.0

_log = log.get(__name__)

Form = Callable[[], Compress]
"""Makes what makes frames, at first use; ConfigError where it cannot."""


def forms(config: DeliveryConfig) -> tuple[Form, ...]:
    """Give the ways to make batches that a configuration allows, the best one first."""
    if config.batch == "off":
        return ()
    if config.dictionary_path is None:
        return (compressor,)
    return (partial(compressor, config.dictionary_path), compressor)


class Batching:
    """Batches from their making to their receipt; `forms` are the ways to make them, best first."""

    def __init__(self, forms: Sequence[Form], receipt_timeout_s: float) -> None:
        self._forms = forms
        self._form = 0
        self._compress: Compress | None = None
        self._timeout_ns = int(receipt_timeout_s * NS_PER_S)
        self._ready: deque[Batch] = deque()
        self._flying: dict[str, Batch] = {}
        self._awaited: dict[str, tuple[int, tuple[int, ...]]] = {}  # when it is due, and the rows
        self._is_proven = False
        self._has_signed = False  # the centre, since batches were last given up
        self._has_ever_signed = False  # in this run
        self._misses = 0  # receipts in a row that did not come
        self._rest_s = 0.0
        self._rest_until_ns = 0
        self._look_ns = 0
        self._losses = 0  # connections in a row that ended before a batch was known to be there
        self.most_rows = MOST_ROWS  # in the next one

    def __len__(self) -> int:
        return len(self._ready) + len(self._flying) + len(self._awaited)

    @property
    def after_id(self) -> int:
        """The highest row under way, 0 without any: rows are batched in the order of their ids."""
        here = (batch.row_ids for batch in chain(self._ready, self._flying.values()))
        awaited = (row_ids for _, row_ids in self._awaited.values())
        return max((row_ids[-1] for row_ids in chain(here, awaited)), default=0)

    def wants_rows(self, now_ns: int) -> bool:
        """Whether a look at old rows is due."""
        return (
            self._form < len(self._forms)
            and not self._ready
            and len(self) < (MOST_OPEN if self._is_proven else 1)
            and now_ns >= max(self._rest_until_ns, self._look_ns)
        )

    def offer(self, rows: Sequence[Row], root: str, now_ns: int) -> None:
        """Make batches of old rows; what is left of them goes singly when no batch is under way."""
        large = {
            kind: group for kind, group in groups(rows, root).items() if len(group) >= LEAST_ROWS
        }
        compress = self._compressor(now_ns) if large else None
        if compress is None:
            self._look_ns = now_ns + int(LOOK_S * NS_PER_S)
            return
        self._ready.extend(pack(kind, group, compress) for kind, group in large.items())

    def next(self, most_bytes: int, may_go: Callable[[int], bool], now_ns: int) -> Batch | None:
        """Give a batch to send now; if it is larger than `most_bytes`, smaller ones come later.

        Args:
            most_bytes: what the broker takes.
            may_go: whether so many bytes may go now.
            now_ns: now.
        """
        is_full = len(self._flying) >= MOST_FLYING or (
            sum(len(batch.payload) for batch in self._flying.values()) >= MOST_FLYING_BYTES
        )
        if is_full or not self._ready:
            return None
        batch = self._ready[0]
        if len(batch.payload) > most_bytes:
            self._shrink(batch, most_bytes, now_ns)
            return None
        if not may_go(len(batch.payload)):
            return None
        self._ready.popleft()
        self._flying[batch.batch_id] = batch
        return batch

    def acked(self, batch: Batch, now_ns: int) -> None:
        """Wait for the receipt of a batch: the broker has taken it."""
        self._losses = 0
        if self._flying.pop(batch.batch_id, None) is not None:
            wait_ns = min(self._timeout_ns << self._misses, MOST_WAIT_NS)
            self._awaited[batch.batch_id] = (now_ns + wait_ns, batch.row_ids)

    def returned(self, batch: Batch) -> None:
        """Let go of a batch that the broker has no room for: its rows are read again."""
        self._flying.pop(batch.batch_id, None)

    def refused(self, batch: Batch, reason: str, now_ns: int) -> None:
        """Give up: the broker does not take a batch; what it says of others then is old news."""
        if batch.batch_id in self._flying:
            self.fail(reason, now_ns)

    def receipted(self, ids: Iterable[str]) -> list[int]:
        """Give the rows of those batches that the centre has signed for."""
        gone: list[int] = []
        for name in ids:
            batch = self._flying.pop(name, None)
            _, row_ids = self._awaited.pop(name, (0, batch.row_ids if batch else ()))
            gone += row_ids
        if gone:
            self._is_proven = self._has_signed = self._has_ever_signed = True
            self._misses, self._losses, self._rest_s, self._look_ns = 0, 0, 0.0, 0
        return gone

    def check(self, now_ns: int) -> None:
        """Send again what is overdue, as one batch, or give up."""
        due_ns, _ = next(iter(self._awaited.values()), (now_ns + 1, ()))
        if due_ns > now_ns:
            return
        if not self._has_signed or self._misses >= MOST_MISSES:
            self.fail("no receipt of the centre", now_ns)
            return
        self.forget_all()
        self._is_proven = False
        self._misses += 1

    def fail(self, reason: str, now_ns: int) -> None:
        """Give up the batches under way: the next form is tried, after the last one comes a rest.

        What is still to come for them, receipts too, is nobody's.
        """
        self.forget_all()
        self._is_proven = self._has_signed = False
        self._misses, self._compress = 0, None
        self._form += 1
        if self._form < len(self._forms):
            _log.warning("batches without a dictionary from now on", reason=reason)
            return
        self._form = 0
        # One that has ever signed for a batch will do so again when it is back.
        most_s = FIRST_REST_S if self._has_ever_signed else MOST_REST_S
        self._rest_s = min(max(FIRST_REST_S, 2 * self._rest_s), most_s)
        self._rest_until_ns = now_ns + int(self._rest_s * NS_PER_S)
        _log.info("no batches for a while", rest_s=self._rest_s, reason=reason)

    def reconnected(self, now_ns: int, *, session_present: bool) -> None:
        """Begin anew with what the broker has not taken; with all, where it has forgotten too.

        Where connection after connection ends over a batch, smaller packets may still pass.
        """
        self._losses += bool(self._flying)
        awaited = self._awaited if session_present else {}
        self.forget_all()
        self._awaited = awaited
        self._look_ns = 0
        self.most_rows = MOST_ROWS
        if self._losses >= MOST_LOSSES:
            self._losses = 0
            self.fail("connections end over it", now_ns)

    def forget_all(self) -> None:
        """Let go of every batch: the rows are read again."""
        self._ready.clear()
        self._flying = {}
        self._awaited = {}

    def _compressor(self, now_ns: int) -> Compress | None:
        if self._compress is None:
            try:
                self._compress = self._forms[self._form]()
            except ConfigError as error:
                self.fail(str(error), now_ns)
        return self._compress

    def _shrink(self, batch: Batch, most_bytes: int, now_ns: int) -> None:
        self._ready.clear()
        self.most_rows = len(batch.row_ids) // 2
        if self.most_rows < LEAST_ROWS:
            self.most_rows = MOST_ROWS
            self.fail(f"allowed: {most_bytes} bytes", now_ns)
