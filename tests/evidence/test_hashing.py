"""One pass gives the whole hash and the leaves; the tree is that of RFC 6962."""

import hashlib
import io
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.evidence.hashing import (
    LEAF_BYTES,
    HashingWriter,
    LeafHasher,
    copy_hashed,
    hash_file,
    tree_hash,
)

# The inputs and roots of the Certificate Transparency reference implementation of RFC 6962.
CT_INPUTS = (
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
)
CT_ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def ct_leaf(text):
    return hashlib.sha256(b"\x00" + bytes.fromhex(text)).digest()


def test_empty_tree():
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert tree_hash([]).hex() == empty
    assert LeafHasher().finish().leaf_root == empty
    assert LeafHasher().finish().leaves == ()


@pytest.mark.parametrize("count", range(1, 9))
def test_tree_has_the_published_roots(count):
    assert tree_hash([ct_leaf(text) for text in CT_INPUTS[:count]]).hex() == CT_ROOTS[count - 1]


def mth(leaves):
    """RFC 6962 2.1 as it is written there: k is the largest power of two smaller than n."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


@given(leaves=st.lists(st.binary(max_size=8), min_size=1, max_size=70))
@settings(max_examples=40)
def test_tree_is_the_one_of_the_standard(leaves):
    hashes = [hashlib.sha256(b"\x00" + leaf).digest() for leaf in leaves]
    assert tree_hash(hashes) == mth(leaves)


@pytest.mark.parametrize(
    "size_bytes",
    [0, 1, LEAF_BYTES - 1, LEAF_BYTES, LEAF_BYTES + 1, 3 * LEAF_BYTES - 1],
)
def test_leaves_at_their_borders(tmp_path, size_bytes):
    content = (b"0123456789abcdef" * (size_bytes // 16 + 1))[:size_bytes]
    (tmp_path / "file").write_bytes(content)
    found = hash_file(tmp_path / "file")
    parts = [content[at : at + LEAF_BYTES] for at in range(0, size_bytes, LEAF_BYTES)]
    assert found.size_bytes == size_bytes
    assert found.sha256 == hashlib.sha256(content).hexdigest()
    assert found.leaves == tuple(hashlib.sha256(b"\x00" + part).hexdigest() for part in parts)
    assert found.leaf_root == (mth(parts) if parts else hashlib.sha256().digest()).hex()


@given(cuts=st.lists(st.integers(0, 2 * LEAF_BYTES + 77), max_size=12))
@settings(max_examples=15, deadline=None)
def test_hash_does_not_depend_on_how_the_bytes_come(cuts):
    content = bytes(2 * LEAF_BYTES + 77)
    borders = [0, *sorted(cuts), len(content)]
    whole, pieces = LeafHasher(), LeafHasher()
    whole.update(content)
    for first, last in pairwise(borders):
        pieces.update(memoryview(content)[first:last])
    assert pieces.finish() == whole.finish()


class Sluggish(io.RawIOBase):
    """A raw stream that takes at most three bytes at a time, as raw streams may."""

    def __init__(self):
        self.taken = bytearray()

    def write(self, data):
        part = bytes(data[:3])
        self.taken += part
        return len(part)


def test_writer_passes_on_exactly_what_it_hashes():
    target = Sluggish()
    writer = HashingWriter(target)
    assert writer.write(b"hello ") == 6
    assert writer.write(b"world") == 5
    assert bytes(target.taken) == b"hello world"
    assert writer.finish().sha256 == hashlib.sha256(b"hello world").hexdigest()


def test_copy_is_hashed_on_the_way(tmp_path):
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(bytes(range(256)) * 20_000)
    with target.open("wb") as stream:
        found = copy_hashed(source, stream)
    assert target.read_bytes() == source.read_bytes()
    assert found == hash_file(target)


def test_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        hash_file(tmp_path / "none")
