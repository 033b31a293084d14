"""The centre's signed word: it keeps a file, it keeps these messages, or do this."""

from collections.abc import Mapping, Sequence
from typing import Any

from agent.core import wire
from agent.core.errors import ReceiptInvalid
from agent.evidence.keys import DeviceKey, PublicKey

FILE_TYPE = "application/vnd.outpost.receipt.file+json"
ROWS_TYPE = "application/vnd.outpost.receipt.rows+json"
COMMAND_TYPE = "application/vnd.outpost.command+json"
STORE_TYPE = "application/vnd.outpost.store+json"
FILE_PREFIX = "receipt-"


def file_name(name: str) -> str:
    """Give the name under which the receipt for a file stands beside it."""
    return f"{FILE_PREFIX}{name}.json"


def sign_file_receipt(fields: Mapping[str, Any], key: DeviceKey) -> wire.Json:
    """Complete a file receipt with version, key id and signature."""
    return _sign("file_receipt", FILE_TYPE, fields, key)


def sign_row_receipt(fields: Mapping[str, Any], key: DeviceKey) -> wire.Json:
    """Complete a receipt for messages with version, key id and signature."""
    return _sign("row_receipt", ROWS_TYPE, fields, key)


def sign_command(fields: Mapping[str, Any], key: DeviceKey) -> wire.Json:
    """Complete a command with version, key id and signature."""
    return _sign("command", COMMAND_TYPE, fields, key)


def sign_store(fields: Mapping[str, Any], key: DeviceKey) -> wire.Json:
    """Complete the word on a store with version, key id and signature."""
    return _sign("store", STORE_TYPE, fields, key)


def check_store(document: wire.Json, key: PublicKey, device: str) -> wire.Json:
    """Check the word on a store, and return it.

    Raises:
        ReceiptInvalid: naming what differs.
    """
    _check(STORE_TYPE, document, key)
    if document["device"] != device:
        raise ReceiptInvalid(f"store: for device {document['device']!r}; wanted: {device!r}")
    return document


def check_command(document: wire.Json, key: PublicKey) -> wire.Json:
    """Check that the pinned key of the centre signed a command, and return it.

    Raises:
        ReceiptInvalid: naming what differs.
    """
    _check(COMMAND_TYPE, document, key)
    return document


def check_file_receipt(
    document: wire.Json, key: PublicKey, expected: Mapping[str, object]
) -> wire.Json:
    """Check a file receipt's signature and that it is for what we have.

    Args:
        document: the receipt, already valid against its schema.
        key: the pinned key of the centre.
        expected: fid, device, sha256 and size_bytes of our file, or some of them.

    Raises:
        ReceiptInvalid: naming what differs.
    """
    _check(FILE_TYPE, document, key)
    for name, wanted in expected.items():
        if document[name] != wanted:
            raise ReceiptInvalid(f"receipt: {name} {document[name]!r}; wanted: {wanted!r}")
    return document


def check_row_receipt(document: wire.Json, key: PublicKey, device: str) -> Sequence[str]:
    """Check a receipt for messages and give the ids it names.

    Raises:
        ReceiptInvalid: naming what differs.
    """
    _check(ROWS_TYPE, document, key)
    if document["device"] != device:
        raise ReceiptInvalid(f"receipt: for device {document['device']!r}; wanted: {device!r}")
    return tuple(document["ids"])


def _sign(schema: str, payload_type: str, fields: Mapping[str, Any], key: DeviceKey) -> wire.Json:
    document = {**fields, "sv": wire.SCHEMA_VERSION, "keyid": key.keyid}
    signed = {**document, "sig": key.sign(payload_type, wire.canonical(document))}
    return wire.check(schema, signed)


def _check(payload_type: str, document: wire.Json, key: PublicKey) -> None:
    if document["keyid"] != key.keyid:
        raise ReceiptInvalid(f"receipt: made by {document['keyid']}; pinned: {key.keyid}")
    unsigned = {name: value for name, value in document.items() if name != "sig"}
    try:
        content = wire.canonical(unsigned)
    except (TypeError, ValueError) as error:
        raise ReceiptInvalid(f"receipt: {error}") from error
    if not key.is_signed(payload_type, content, document["sig"]):
        raise ReceiptInvalid(f"receipt: the signature of {key.keyid} does not fit")
