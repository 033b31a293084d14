"""What the centre says, checked by whichever of its keys counts; and what it wants us to know."""

from collections.abc import Mapping, Sequence

from agent.core import wire
from agent.core.wire import Json
from agent.delivery.centrestore import CentreStore
from agent.device.wants import Want
from agent.evidence import receipt
from agent.evidence.centrekeys import CentreKeys


class CentreWord:
    """Checks of everything that the centre signs for one device; ReceiptInvalid if it did not."""

    def __init__(self, keys: CentreKeys, device: str) -> None:
        self._keys = keys
        self._device = device

    def rows(self, document: Json) -> Sequence[str]:
        """Check a receipt for messages and give their ids."""
        return self._keys.check(
            document,
            int(document["stored_utc_ms"]),
            lambda found, key: receipt.check_row_receipt(found, key, self._device),
        )

    def file(self, document: Json, expected: Mapping[str, object]) -> Json:
        """Check a receipt for a file."""
        return self._keys.check(
            document,
            int(document["stored_utc_ms"]),
            lambda found, key: receipt.check_file_receipt(found, key, expected),
        )

    def command(self, document: Json) -> Json:
        """Check a command."""
        return self._keys.check(document, int(document["issued_utc_ms"]), receipt.check_command)

    def store(self, document: Json) -> Json:
        """Check the word on a store."""
        return self._keys.check(
            document,
            int(document["issued_utc_ms"]),
            lambda found, key: receipt.check_store(found, key, self._device),
        )


def wants(keys: CentreKeys, word: CentreWord, store: CentreStore) -> Mapping[str, Want]:
    """Give what is done with each name below `want/`."""

    def receiver_key(payload: bytes) -> None:
        keys.follow(wire.decode("receiver_keys", payload)["rotations"])

    def centre_store(payload: bytes) -> None:
        store.heard(word.store(wire.decode("store", payload)))

    return {"receiver_key": receiver_key, "store": centre_store}
