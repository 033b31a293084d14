"""One part file: where chunks land, what is believed after a restart, and the check at the end."""

import os

import pytest

from agent.core.errors import HashMismatch, MalformedMessage
from agent.evidence.hashing import LEAF_BYTES
from agent.receiver.assembly import MOST_RANGES, Assembly
from agent.receiver.ranges import Ranges
from tests.receiver.rig import Device, payload


@pytest.fixture
def opened(tmp_path):
    """Open assemblies of one-file hand-overs; all are closed at the end."""
    device, made = Device(tmp_path), []

    def make(content, have=(), number=0):
        files, signed = device.clip(number, contents={"clip-1.mp4": content})
        offer = device.offer(files, signed)
        entry = payload(signed)["files"][0]
        path = tmp_path / "incoming" / f"{number}.part"
        made.append(Assembly(path, offer, entry, "c" * 32).open(Ranges(have)))
        return made[-1]

    yield make
    for assembly in made:
        assembly.close()
        assembly.close()


def is_whole(assembly):
    return assembly.check(lambda: False)


def test_chunks_land_at_their_offsets_and_the_whole_is_right(opened):
    content = os.urandom(10_000)
    assembly = opened(content)
    for at in (9_000, 0, 4_000, 3_000):
        assembly.write(at, content[at : at + 5_000])
    assert assembly.missing == ()
    assert assembly.dirty_bytes == 1_000 + 3 * 5_000
    assembly.sync()
    assert assembly.dirty_bytes == 0
    assert is_whole(assembly)
    assert assembly.path.read_bytes() == content


@pytest.mark.parametrize(("at", "size"), [(0, 0), (0, 101), (100, 1), (99, 2), (10**15, 1)])
def test_chunk_that_is_empty_or_outside_leaves_no_trace(opened, at, size):
    assembly = opened(bytes(100))
    with pytest.raises(MalformedMessage, match="inside 0 to 100"):
        assembly.write(at, bytes(size))
    assert assembly.have.spans == ()
    assert assembly.path.stat().st_size == 0


def test_what_is_missing_is_named_in_bounds(opened):
    assembly = opened(bytes(4 * MOST_RANGES))
    for at in range(0, 4 * MOST_RANGES, 2):
        assembly.write(at, b"\0")
    assert len(assembly.missing) == MOST_RANGES
    assert assembly.missing[0] == (1, 2)


def test_ranges_are_believed_only_as_far_as_the_part_file_goes(opened):
    first = opened(bytes(1_000))
    first.write(0, bytes(600))
    first.close()
    assert opened(bytes(1_000), have=[(0, 600)]).missing == ((600, 1_000),)
    assert opened(bytes(1_000), have=[(0, 601)]).missing == ((0, 1_000),)


def test_part_that_nothing_is_known_of_is_begun_anew(opened):
    """A longer one that was left behind must not make a good file look wrong."""
    stale = opened(bytes(5_000))
    stale.write(0, b"x" * 5_000)
    stale.close()
    content = os.urandom(2_000)
    again = opened(content)
    again.write(0, content)
    assert is_whole(again)


def test_wrong_byte_is_named_by_its_leaf(opened):
    content = bytes(LEAF_BYTES + 10)
    assembly = opened(content)
    assembly.write(0, content[:-1] + b"\1")
    with pytest.raises(HashMismatch, match=f"leaf 1, bytes {LEAF_BYTES} to {LEAF_BYTES + 9}"):
        is_whole(assembly)


def test_check_ends_when_it_is_told_to(opened):
    assembly = opened(bytes(3 << 20))
    assembly.write(0, bytes(3 << 20))
    assert assembly.check(lambda: True) is False


def test_link_in_the_place_of_a_part_is_not_followed(tmp_path, opened):
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "0.part").symlink_to(target)
    with pytest.raises(OSError, match="symbolic"):
        opened(bytes(100))
    assert target.read_bytes() == b"precious"
