"""The custody log: every edit, removal, move and cut is found, and its place is named."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core import wire
from agent.core.clock import SimClock
from agent.core.errors import ChainBroken, IntegrityError
from agent.evidence import custody
from agent.evidence.keys import DeviceKey

KEY = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))


def made(count):
    """Entries as the export shows them."""
    entries, previous = [], custody.NO_HASH
    for seq in range(1, count + 1):
        entry = {
            "seq": seq,
            "utc_ms": 1_700_000_000_000 + seq,
            "kind": "clip.sealed",
            "subject": f"{seq:032x}",
            "detail": {"files": seq},
            "previous": previous,
        }
        previous = entry["hash"] = custody.entry_hash(entry)
        entries.append(entry)
    return entries


def changed(value):
    if isinstance(value, dict):
        return {"files": -1}
    return value + 1 if isinstance(value, int) else value[:-1] + ("0" if value[-1] != "0" else "1")


def rows(store):
    with store.reading() as connection:
        return [dict(row) for row in connection.execute("SELECT * FROM custody ORDER BY seq")]


def test_entries_of_the_store_make_a_chain(store):
    clock = SimClock()
    for number in range(5):
        head = store.write(
            lambda connection, number=number: custody.append(
                connection, clock, "clip.sealed", f"clip {number}", {"files": number, "ä": None}
            )
        )
    assert head.seq == 5
    assert custody.check_chain(rows(store)) == head
    parsed = [row | {"detail": json.loads(row["detail"])} for row in rows(store)]
    assert custody.check_chain(parsed) == head


def test_entry_of_a_failed_transaction_leaves_no_trace(store):
    clock = SimClock()

    def fail(connection):
        custody.append(connection, clock, "clip.sealed", "x", {})
        raise IntegrityError("no")

    with pytest.raises(IntegrityError):
        store.write(fail)
    head = store.write(lambda c: custody.append(c, clock, "clip.sealed", "y", {}))
    assert head.seq == 1
    assert custody.check_chain(rows(store)) == head


def test_detail_with_a_float_is_refused_before_it_is_written(store):
    with pytest.raises(TypeError, match="float"):
        store.write(lambda c: custody.append(c, SimClock(), "k", "s", {"score": 0.5}))
    assert rows(store) == []


def test_empty_log_has_a_head():
    assert custody.check_chain([]) == custody.Head(0, custody.NO_HASH)


@given(data=st.data(), count=st.integers(1, 12))
@settings(max_examples=60)
def test_any_edit_is_found_at_its_entry(data, count):
    entries = made(count)
    at = data.draw(st.integers(0, count - 1))
    name = data.draw(st.sampled_from(sorted(entries[at])))
    old = entries[at][name]
    entries[at][name] = changed(old)
    with pytest.raises(ChainBroken, match=rf"entry {entries[at]['seq']}\b"):
        custody.check_chain(entries)


@given(data=st.data(), count=st.integers(2, 12))
@settings(max_examples=40)
def test_removed_and_reordered_entries_are_found(data, count):
    entries = made(count)
    at = data.draw(st.integers(0, count - 2))
    without = entries[:at] + entries[at + 1 :]
    with pytest.raises(ChainBroken, match=f"entry {at + 2} stands where {at + 1} belongs"):
        custody.check_chain(without)
    swapped = [*entries[:at], entries[at + 1], entries[at], *entries[at + 2 :]]
    with pytest.raises(ChainBroken, match=f"entry {at + 2} stands where {at + 1} belongs"):
        custody.check_chain(swapped)


def test_entry_rewritten_with_a_new_hash_is_found_at_the_next():
    entries = made(4)
    entries[1]["detail"] = {"files": 99}
    entries[1]["hash"] = custody.entry_hash(entries[1])
    with pytest.raises(ChainBroken, match="entry 3 does not follow"):
        custody.check_chain(entries)


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"seq": 1},
        {"seq": 1, "previous": custody.NO_HASH, "hash": "", "detail": "{"},
        {"seq": 1, "previous": custody.NO_HASH, "hash": "", "detail": 0.5},
        {"seq": 1, "previous": custody.NO_HASH, "hash": "", "detail": "[" * 100_000},
        {"seq": 1.0, "previous": custody.NO_HASH, "hash": "", "detail": {}},
        {"seq": "1", "previous": custody.NO_HASH, "hash": "", "detail": {"a": "\ud800"}},
    ],
)
def test_what_is_no_entry_breaks_the_chain(entry):
    with pytest.raises(ChainBroken, match="custody: entry 1"):
        custody.check_chain([entry])


def signed(store, clock=None):
    return store.write(lambda c: custody.signed_head(c, KEY, clock or SimClock(), "cam-1"))


def grow(store, count):
    for _ in range(count):
        store.write(lambda c: custody.append(c, SimClock(), "k", "s", {}))


def test_signed_head_holds_for_the_log_and_for_what_it_grew_to(store):
    grow(store, 3)
    head = signed(store)
    hashes = {}
    custody.check_chain(rows(store), hashes)
    assert custody.check_head(head, KEY.public, hashes).seq == 3
    grow(store, 2)
    hashes = {}
    custody.check_chain(rows(store), hashes)
    assert custody.check_head(head, KEY.public, hashes).seq == 3


def test_cut_end_is_found_against_a_signed_head(store):
    grow(store, 5)
    head = signed(store)
    hashes = {}
    custody.check_chain(rows(store)[:3], hashes)
    with pytest.raises(ChainBroken, match="ends at entry 3; signed: entry 5"):
        custody.check_head(head, KEY.public, hashes)


def test_log_that_was_made_anew_is_found_against_a_signed_head(store):
    grow(store, 3)
    hashes = {}
    custody.check_chain(made(4), hashes)
    with pytest.raises(ChainBroken, match="entry 3 is not the one that was signed"):
        custody.check_head(signed(store), KEY.public, hashes)


def test_head_of_an_empty_log_and_of_another_key(store):
    head = signed(store)
    assert custody.check_head(head, KEY.public, {}).seq == 0
    other = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))
    with pytest.raises(IntegrityError, match="signature: made by"):
        custody.check_head(head, other.public, {})
    payload = base64.b64encode(wire.canonical({"sv": 1})).decode()
    with pytest.raises(IntegrityError, match="does not fit"):
        custody.check_head(head | {"payload": payload}, KEY.public, {})
