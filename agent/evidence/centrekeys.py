"""Which keys of the centre count on this device: pinned on the disk, and only ever forwards.

The configuration names the first key. What it has signed may name the next one, and so on. A new
key takes over with the first thing it signs; from then on those before it are retired: what they
sign is refused, and what they signed stays in the rows and in the log, to be checked by them.
"""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from agent.core import log, wire
from agent.core.errors import IntegrityError, ReceiptInvalid, StorageError
from agent.core.files import write_atomic
from agent.evidence.keys import PublicKey
from agent.evidence.rotation import Chain

FILE_NAME = "receiver_keys.json"
ROTATED, RETIRED = "receiver.key_rotated", "receiver.key_retired"

_log = log.get(__name__)

T = TypeVar("T")
Note = Callable[[str, str, Mapping[str, object]], object]
"""Appends (kind, subject, detail) to the custody log in a transaction of its own."""


class CentreKeys:
    """The pinned keys; safe from any thread."""

    def __init__(self, first: PublicKey, site: str, folder: Path, note: Note) -> None:
        self._site = site
        self._path = folder / FILE_NAME
        self._note = note
        self._lock = threading.RLock()
        self._chain = Chain(first)
        self._used = 0  # index of the newest key that has signed something

    @property
    def current(self) -> PublicKey:
        """The key that signs at present."""
        return self._chain.keys[self._used]

    @property
    def all(self) -> tuple[PublicKey, ...]:
        """Every key the chain leads through, the newest last."""
        return self._chain.keys

    def open(self) -> None:
        """Take up what was pinned before, if it begins at the configured key."""
        try:
            stored = json.loads(self._path.read_bytes())
            chain = Chain.read(self._chain.first, _documents(stored), self._site)
            used = PublicKey(bytes.fromhex(stored["used"]))
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, IntegrityError) as error:
            _log.error("pinned keys of the centre not used", path=self._path, reason=error)
            return
        self._chain = chain
        self._used = chain.keys.index(used) if used in chain.keys else 0

    def follow(self, documents: Sequence[wire.Json]) -> bool:
        """Pin what the centre says of its keys; false if it is known.

        Raises:
            IntegrityError: it does not go on from what is pinned.
            StorageError: the disk refuses; nothing has changed.
        """
        with self._lock:
            chain = Chain.read(self._chain.first, documents, self._site)
            if not self._chain.grown_to(chain):
                return False
            self._keep(chain, self._used)
            before, self._chain = self._chain, chain
        for step in chain.steps[len(before.steps) :]:
            facts = {
                "from": step.old.keyid,
                "number": step.number,
                "not_before_utc_ms": step.not_before_utc_ms,
            }
            self._tell(ROTATED, step.new.keyid, facts)
            _log.warning("the centre has a new key", old=step.old.keyid, new=step.new.keyid)
        return True

    def check(
        self, document: wire.Json, utc_ms: int, check: Callable[[wire.Json, PublicKey], T]
    ) -> T:
        """Check a document by the key that it names.

        Args:
            document: what the centre signed, with its `keyid`.
            utc_ms: when, by the document itself.
            check: raises ReceiptInvalid unless this key signed it.

        Raises:
            ReceiptInvalid: the key is not pinned, retired, or does not count yet.
        """
        keys = self._chain.keys
        index = next(
            (at for at, key in enumerate(keys) if key.keyid == document["keyid"]), self._used
        )
        if index < self._used:
            raise ReceiptInvalid(f"{keys[index].keyid}: retired; now: {keys[self._used].keyid}")
        found = check(document, keys[index])
        if index > self._used:
            begins_utc_ms = self._chain.steps[index - 1].not_before_utc_ms
            if utc_ms < begins_utc_ms:
                raise ReceiptInvalid(
                    f"{keys[index].keyid}: counts from {begins_utc_ms}; signed at {utc_ms}"
                )
            self._take_over(index)
        return found

    def _take_over(self, index: int) -> None:
        with self._lock:
            retired = self._chain.keys[self._used : index]
            if not retired:
                return
            try:
                self._keep(self._chain, index)
            except StorageError as error:  # what it has signed comes again
                raise ReceiptInvalid(f"{self._chain.keys[index].keyid}: {error}") from error
            self._used = index
        for key in retired:
            self._tell(RETIRED, key.keyid, {"by": self.current.keyid})

    def _keep(self, chain: Chain, used: int) -> None:
        stored = {
            "rotations": [step.document for step in chain.steps],
            "used": chain.keys[used].raw.hex(),
        }
        try:
            write_atomic(self._path, json.dumps(stored).encode())
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror}") from error

    def _tell(self, kind: str, subject: str, facts: Mapping[str, object]) -> None:
        try:
            self._note(kind, subject, facts)
        except StorageError as error:
            _log.error("not noted in the custody log", kind=kind, subject=subject, reason=error)


def _documents(stored: wire.Json) -> Sequence[wire.Json]:
    found = {"sv": wire.SCHEMA_VERSION, "rotations": stored["rotations"]}
    documents: Sequence[wire.Json] = wire.check("receiver_keys", found)["rotations"]
    return documents
