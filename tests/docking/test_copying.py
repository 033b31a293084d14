"""One file from a camera, whatever happens in between: cut, killed, changed, a full disk."""

import hashlib
import os
import random
import resource
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core.errors import SourceLost, StorageError, Unsupported
from agent.docking import copying
from agent.evidence.hashing import LEAF_BYTES, hash_file

NAME = "MOV_0001.mp4"
SIZE = 3 * LEAF_BYTES + 70_001


class Pulled(Exception):
    """The work ends here."""


@pytest.fixture(scope="module")
def content():
    return random.Random(5).randbytes(SIZE)


@pytest.fixture
def root(tmp_path, content):
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / NAME).write_bytes(content)
    return tmp_path / "card"


def source(root):
    status = (root / NAME).stat()
    return copying.Source(root, NAME, status.st_size, status.st_mtime_ns)


def copied(root, until=None, room=lambda: None, given=None):
    """Copy; `until`: pulled once so many bytes came."""
    came = 0

    def tick(count):
        nonlocal came
        came += count
        if until is not None and came >= until:
            raise Pulled

    return copying.copy(given or source(root), root.parent / "parts", "1", room, tick)


def part(root):
    return root.parent / "parts" / "1.part"


def assert_right(root, done, content):
    assert part(root).read_bytes() == content
    assert done.hash.sha256 == hashlib.sha256(content).hexdigest()
    assert done.hash == hash_file(part(root))


class Reads:
    """Counts what is read of the camera."""

    def __init__(self, monkeypatch, root):
        self.places = []
        plain = os.pread

        def counted(descriptor, count, place):
            if str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith(str(root)):
                self.places.append((place, count))
            return plain(descriptor, count, place)

        monkeypatch.setattr(os, "pread", counted)

    def below(self, end):
        """Bytes read again, besides the seven places of 64 KiB."""
        return sum(count for place, count in self.places if place < end and count > 64 << 10)


def test_a_file_is_copied_and_hashed(root, content):
    done = copied(root)
    assert_right(root, done, content)
    assert (done.flags, done.bad) == ([], [])


@pytest.mark.parametrize("size", [0, 1, 64 << 10, LEAF_BYTES, LEAF_BYTES + 1])
def test_sizes_at_the_edges(root, content, size):
    (root / NAME).write_bytes(content[:size])
    assert_right(root, copied(root), content[:size])


def test_a_cut_copy_reads_at_most_one_leaf_again(root, content, monkeypatch):
    with pytest.raises(Pulled):
        copied(root, until=2 * LEAF_BYTES + 1_000_000)
    here = part(root).stat().st_size
    assert here >= 2 * LEAF_BYTES
    reads = Reads(monkeypatch, root)
    assert_right(root, copied(root), content)
    assert reads.below(here) <= LEAF_BYTES


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_random_cuts_with_any_tail_of_the_files_lost(tmp_path_factory, data):
    """Five pulls or power cuts each: what was not synced may be gone, or be zeros."""
    folder = tmp_path_factory.mktemp("cuts")
    (folder / "card").mkdir()
    content = random.Random(data.draw(st.integers(0, 99))).randbytes(2 * LEAF_BYTES + 300_000)
    (folder / "card" / NAME).write_bytes(content)
    root = folder / "card"
    for _ in range(5):
        with suppress(Pulled):
            copied(root, until=data.draw(st.integers(1, len(content) + 1)))
        harm = data.draw(st.sampled_from(["none", "cut", "zeros", "noise", "leaves"]))
        damage(folder, harm, data.draw(st.floats(0, 1)))
    assert_right(root, copied(root), content)


def damage(folder, harm, share):
    path, leaves = folder / "parts" / "1.part", folder / "parts" / "1.leaves"
    size = path.stat().st_size
    at = int(share * size)
    if harm == "cut":
        os.truncate(path, at)
    elif harm in ("zeros", "noise") and size:
        with path.open("r+b") as stream:
            stream.seek(at)
            stream.write(bytes(9) if harm == "zeros" else b"\x5anot yours"[:9])
            stream.truncate(size)
    elif harm == "leaves":
        os.truncate(leaves, int(share * leaves.stat().st_size))


def test_a_file_that_became_another_is_copied_anew(root, content):
    with pytest.raises(Pulled):
        copied(root, until=2 * LEAF_BYTES)
    other = random.Random(6).randbytes(SIZE)
    (root / NAME).write_bytes(other)
    done = copied(root)
    assert_right(root, done, other)
    assert done.flags == ["begun_anew"]
    (aside,) = (root.parent / "parts").glob("1.aside-*")
    assert content.startswith(aside.read_bytes()), "what was here is not lost"


def test_a_disk_that_is_full_is_told_and_what_is_here_stays(root, content):
    asked = iter([None, None])

    def room():
        if next(asked, "full") == "full":
            raise StorageError("dock's disk: full")

    with pytest.raises(Pulled):
        copied(root, until=LEAF_BYTES, room=room)
    here = part(root).stat().st_size
    next(asked)
    with pytest.raises(StorageError):
        copied(root, room=room)
    assert part(root).stat().st_size == here
    assert_right(root, copied(root), content)


def test_a_write_that_fails_is_a_storage_error_and_nothing_is_lost(root, content):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LEAF_BYTES + 5, limit[1]))
    try:
        with pytest.raises(StorageError, match="File too large"):
            copied(root)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert part(root).read_bytes() == content[: LEAF_BYTES + 5]
    assert_right(root, copied(root), content)


def test_growing_and_shrinking_files_are_flagged_and_kept(root, content):
    told = source(root)
    with (root / NAME).open("ab") as stream:
        stream.write(b"more")
    done = copied(root, given=told)
    assert done.flags == ["grew"]
    assert_right(root, done, content)
    copying.discard(root.parent / "parts", "1")
    os.truncate(root / NAME, LEAF_BYTES + 5)
    done = copied(root, given=told)
    assert done.flags == ["shrank"]
    assert_right(root, done, content[: LEAF_BYTES + 5])


def test_a_tail_of_zeros_is_flagged(root, content):
    zeros = content[:-100_000] + bytes(100_000)
    (root / NAME).write_bytes(zeros)
    done = copied(root)
    assert done.flags == ["zero_tail"]
    assert_right(root, done, zeros)


def test_a_file_of_holes_is_copied_as_zeros(root):
    with (root / NAME).open("wb") as stream:
        os.truncate(stream.fileno(), LEAF_BYTES + 9)
    done = copied(root)
    assert done.flags == ["zero_tail"]
    assert part(root).stat().st_size == LEAF_BYTES + 9


def test_a_bad_place_in_the_last_leaf_does_not_begin_all_anew(root, content, monkeypatch):
    """Unreadable bytes stand as zeros here: going on compares all around them."""
    bad = (2 * LEAF_BYTES + (64 << 10), 2 * LEAF_BYTES + (128 << 10))
    card = str(root)
    plain = os.pread
    read = []

    def worn(descriptor, count, place):
        if str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith(card):
            read.append((place, count))
            if place < bad[1] and bad[0] < place + count:
                raise OSError(5, "Input/output error")
        return plain(descriptor, count, place)

    monkeypatch.setattr(os, "pread", worn)
    with pytest.raises(Pulled):
        copied(root, until=2 * LEAF_BYTES + (2 << 20))
    here = part(root).stat().st_size
    read.clear()
    done = copied(root)
    assert done.flags == ["partial"]
    assert done.bad == [bad]
    again = sum(count for place, count in read if place + count <= here)
    assert again <= LEAF_BYTES + (1 << 20), "one leaf, and samples"
    zeros = content[: bad[0]] + bytes(bad[1] - bad[0]) + content[bad[1] :]
    assert_right(root, done, zeros)


def test_what_cannot_be_opened_is_told_apart_from_a_card_that_went(root):
    told = source(root)
    (root / NAME).unlink()
    with pytest.raises(Unsupported):
        copied(root, given=told)
    root.rmdir()
    with pytest.raises(SourceLost):
        copied(root, given=told)
