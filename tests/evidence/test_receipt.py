"""Receipts: they count only with the pinned key's signature and for exactly what we have."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core import wire
from agent.core.errors import MalformedMessage, ReceiptInvalid
from agent.evidence.keys import DeviceKey
from agent.evidence.receipt import (
    check_file_receipt,
    check_row_receipt,
    sign_file_receipt,
    sign_row_receipt,
)

CENTRE = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))
OTHER = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"\x03" * 32))
FILE = {
    "fid": "f" * 32,
    "device": "cam-1",
    "sha256": "a" * 64,
    "size_bytes": 5,
    "stored_utc_ms": 1,
    "copies": 1,
    "retention_until_utc_ms": 2,
    "receiver": "centre-1",
}
ROWS = {"device": "cam-1", "ids": ["1" * 32, "2" * 32], "stored_utc_ms": 1, "receiver": "centre-1"}
EXPECTED = {name: FILE[name] for name in ("fid", "device", "sha256", "size_bytes")}


def test_file_receipt_counts_for_its_file():
    document = sign_file_receipt(FILE, CENTRE)
    over_the_wire = wire.decode("file_receipt", wire.encode(document))
    assert check_file_receipt(over_the_wire, CENTRE.public, EXPECTED) == document


def test_row_receipt_gives_its_ids():
    document = wire.decode("row_receipt", wire.encode(sign_row_receipt(ROWS, CENTRE)))
    assert check_row_receipt(document, CENTRE.public, "cam-1") == ("1" * 32, "2" * 32)


@pytest.mark.parametrize(
    ("name", "value"),
    [("fid", "0" * 32), ("device", "cam-2"), ("sha256", "b" * 64), ("size_bytes", 6)],
)
def test_receipt_for_another_file_is_refused_by_what_differs(name, value):
    document = sign_file_receipt(FILE | {name: value}, CENTRE)
    with pytest.raises(ReceiptInvalid, match=f"receipt: {name} "):
        check_file_receipt(document, CENTRE.public, EXPECTED)


def test_row_receipt_for_another_device_is_refused():
    with pytest.raises(ReceiptInvalid, match="for device 'cam-1'; wanted: 'cam-2'"):
        check_row_receipt(sign_row_receipt(ROWS, CENTRE), CENTRE.public, "cam-2")


def test_receipt_of_another_key_is_refused_even_under_the_right_key_id():
    forged = sign_file_receipt(FILE, OTHER)
    with pytest.raises(ReceiptInvalid, match=f"made by {OTHER.keyid}; pinned: {CENTRE.keyid}"):
        check_file_receipt(forged, CENTRE.public, EXPECTED)
    with pytest.raises(ReceiptInvalid, match="does not fit"):
        check_file_receipt(forged | {"keyid": CENTRE.keyid}, CENTRE.public, EXPECTED)


def test_row_receipt_is_no_file_receipt():
    """The types are signed too: the one signature can not be used for the other form."""
    signature = sign_row_receipt(ROWS, CENTRE)["sig"]
    with pytest.raises(ReceiptInvalid, match="does not fit"):
        check_file_receipt(
            sign_file_receipt(FILE, CENTRE) | {"sig": signature}, CENTRE.public, EXPECTED
        )


@given(name=st.sampled_from(sorted(FILE)))
@settings(max_examples=20)
def test_every_field_is_under_the_signature(name):
    document = sign_file_receipt(FILE, CENTRE)
    old = document[name]
    document[name] = (
        old + 1 if isinstance(old, int) else old[:-1] + ("0" if old[-1] != "0" else "1")
    )
    with pytest.raises(ReceiptInvalid, match="does not fit"):
        check_file_receipt(document, CENTRE.public, {})


def test_receipt_with_a_fraction_is_refused_and_a_whole_number_is_one_however_written():
    document = sign_file_receipt(FILE, CENTRE)
    payload = wire.encode(document)
    with pytest.raises(MalformedMessage):
        wire.decode("file_receipt", payload.replace(b'"size_bytes":5', b'"size_bytes":5.5'))
    same = wire.decode("file_receipt", payload.replace(b'"size_bytes":5', b'"size_bytes":5.0'))
    assert check_file_receipt(same, CENTRE.public, EXPECTED) == document


def test_fields_that_the_schema_refuses_are_never_signed():
    with pytest.raises(MalformedMessage, match="receiver"):
        sign_file_receipt(FILE | {"receiver": "Not A Name"}, CENTRE)
    with pytest.raises(MalformedMessage, match="ids"):
        sign_row_receipt(ROWS | {"ids": ["1" * 32] * 501}, CENTRE)
