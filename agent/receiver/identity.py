"""Which store this is: devices offer their files again when it is not the one that they knew.

The id stands in the index and in a file beside the hand-overs. If one of the two is gone, what it
spoke of is gone too, and the store is another one from then on.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.core import log, wire
from agent.core.clock import NS_PER_MS, Clock
from agent.core.errors import ConfigError, IntegrityError, StorageError
from agent.core.files import write_atomic
from agent.core.store import Store
from agent.evidence.keys import DeviceKey
from agent.evidence.receipt import sign_store
from agent.evidence.rotation import Chain, claims, public_key
from agent.receiver.config import ReceiverConfig

MARK = "store-id"
ROTATIONS = "rotations.json"

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class StoreId:
    """A store's id, and when it was begun."""

    id: str
    begun_utc_ms: int


def identify(store: Store, folder: Path, clock: Clock) -> StoreId:
    """Give the id of an index with the hand-overs in `folder`; make it where there is none.

    Raises:
        OSError: the disk refuses.
        StorageError: the index does.
    """
    mark = folder / MARK
    said = mark.read_text().strip() if mark.exists() else ""

    def settle(connection: sqlite3.Connection) -> StoreId:
        row = connection.execute("SELECT id, begun_utc_ms FROM store_word").fetchone()
        has_files = connection.execute("SELECT 1 FROM file LIMIT 1").fetchone() is not None
        if row is not None and (row["id"] == said or not (said or has_files)):
            return StoreId(row["id"], row["begun_utc_ms"])
        made = StoreId(clock.new_id(), max(0, clock.utc_ns() // NS_PER_MS))
        connection.execute("DELETE FROM store_word")
        connection.execute("INSERT INTO store_word VALUES (?, ?)", (made.id, made.begun_utc_ms))
        _log.warning("a new store is begun", store=made.id, index=row is not None, mark=bool(said))
        return made

    found = store.write(settle)
    if found.id != said:
        write_atomic(mark, f"{found.id}\n".encode())
    return found


def read_rotations(store_dir: Path, key: DeviceKey, site: str) -> Sequence[wire.Json]:
    """Give how the key of this receiver came about, empty if it is the first.

    Raises:
        ConfigError: the file is damaged, of another site, or does not end at this key.
    """
    path = store_dir / ROTATIONS
    try:
        documents: Sequence[wire.Json] = wire.decode("receiver_keys", path.read_bytes())[
            "rotations"
        ]
        chain = Chain.read(public_key(claims(documents[0])["old_key"]), documents, site)
    except FileNotFoundError:
        return ()
    except IntegrityError as error:
        raise ConfigError(f"{path}: {error}") from error
    if chain.keys[-1] != key.public:
        raise ConfigError(f"{path}: ends at {chain.keys[-1].keyid}; this key is {key.keyid}")
    return documents


class Words:
    """What every device is told once on each connection, retained."""

    def __init__(self, config: ReceiverConfig, key: DeviceKey, store: Store, clock: Clock) -> None:
        self._config = config
        self._key = key
        self._store = store
        self._clock = clock
        self._id: StoreId | None = None
        self._told: set[str] = set()

    def reconnected(self) -> None:
        """Tell every device again: the broker may have lost what it retained."""
        self._told.clear()

    def for_device(self, device: str) -> Sequence[tuple[str, wire.Json]]:
        """Give the names and documents for a device that speaks for the first time.

        The keys come first: the word on the store is signed by the newest.
        """
        if device in self._told:
            return ()
        self._told.add(device)
        config = self._config
        if self._id is None:
            folder = config.store_dir / config.site
            try:
                self._id = identify(self._store, folder, self._clock)
            except (OSError, StorageError) as error:
                _log.error("store not identified, told later", reason=error)
                self._told.discard(device)
                return ()
        word = sign_store(
            {
                "device": device,
                "store": self._id.id,
                "begun_utc_ms": self._id.begun_utc_ms,
                "issued_utc_ms": max(0, self._clock.utc_ns() // NS_PER_MS),
                "receiver": config.name,
            },
            self._key,
        )
        told: list[tuple[str, wire.Json]] = [("store", word)]
        if config.rotations:
            keys = {"sv": wire.SCHEMA_VERSION, "rotations": list(config.rotations)}
            told.insert(0, ("receiver_key", keys))
        return told
