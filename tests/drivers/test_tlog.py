"""Reading tlogs: whole ones, torn ones, damaged ones."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymavlink.dialects.v20 import ardupilotmega as dialect

from agent.core.errors import ConfigError
from agent.core.vehicle import Heard
from drivers._tlog import Counts, read

REAL = Path(__file__).parents[3] / "shared" / "data" / "flight.tlog.gz"
START_US = 1_760_000_000_000_000


def records(count: int, *, version: int = 2) -> list[bytes]:
    mav = dialect.MAVLink(None, srcSystem=7, srcComponent=1)
    made = []
    for number in range(count):
        message = dialect.MAVLink_attitude_message(number, 0.1, 0.2, 0.3, 0.0, 0.0, 0.0)
        frame = message.pack(mav, force_mavlink1=version == 1)
        mav.seq = (mav.seq + 1) % 256
        made.append((START_US + number * 1000).to_bytes(8, "big") + frame)
    return made


def written(path: Path, content: bytes) -> tuple[list[Heard], Counts]:
    path.write_bytes(content)
    counts = Counts()
    return list(read(path, counts)), counts


@pytest.mark.parametrize("version", [1, 2])
def test_every_message_comes_with_its_time(tmp_path: Path, version: int) -> None:
    content = b"".join(records(300, version=version))
    for packed in (content, gzip.compress(content)):
        found, counts = written(tmp_path / "a.tlog", packed)
        assert [item.said.time_boot_ms for item in found] == list(range(300))
        assert found[5].utc_ns == (START_US + 5000) * 1000
        assert (found[5].name, found[5].sysid, found[5].seq) == ("ATTITUDE", 7, 5)
        assert counts == Counts(messages=300)


def test_a_torn_tail_is_told_and_is_no_damage(tmp_path: Path) -> None:
    content = b"".join(records(10))[:-7]
    found, counts = written(tmp_path / "a.tlog", content)
    assert len(found) == 9
    assert counts == Counts(messages=9, torn_bytes=len(records(1)[0]) - 7)


@given(st.integers(0, 19), st.binary(min_size=1, max_size=60))
def test_rubbish_between_records_costs_no_other_message(
    tmp_path_factory: pytest.TempPathFactory, at: int, rubbish: bytes
) -> None:
    made = records(20)
    content = b"".join(made[:at]) + rubbish + b"".join(made[at:])
    found, counts = written(tmp_path_factory.mktemp("tlog") / "a.tlog", content)
    assert [item.said.time_boot_ms for item in found] == list(range(20))
    assert counts.bad_bytes == len(rubbish)
    assert counts.bad_places == 1


@given(st.integers(0, 1000), st.integers(1, 255))
def test_a_changed_byte_costs_at_most_its_own_message(
    tmp_path_factory: pytest.TempPathFactory, at: int, by: int
) -> None:
    content = bytearray(b"".join(records(20)))
    content[at % len(content)] ^= by
    found, _ = written(tmp_path_factory.mktemp("tlog") / "a.tlog", bytes(content))
    numbers = [item.said.time_boot_ms for item in found]
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= 19


def test_a_message_that_nobody_defined_is_stepped_over(tmp_path: Path) -> None:
    made = records(4)
    odd = bytearray(made[1])
    odd[8 + 7 : 8 + 10] = (50_999).to_bytes(3, "little")
    found, counts = written(tmp_path / "a.tlog", made[0] + bytes(odd) + made[2] + made[3])
    assert len(found) == 3
    assert counts == Counts(messages=3, unknown=1)


def test_what_is_no_tlog_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no tlog"):
        written(tmp_path / "a.tlog", b"\x89PNG" * 5000)
    with pytest.raises(ConfigError, match="missing"):
        list(read(tmp_path / "missing.tlog", Counts()))
    assert written(tmp_path / "empty.tlog", b"") == ([], Counts())


def test_the_real_flight_day_is_read_whole() -> None:
    if not REAL.exists():
        pytest.skip(f"needs {REAL.name} of the shared data")
    counts = Counts()
    found = list(read(REAL, counts))
    assert len(found) == counts.messages == 163_851
    assert counts.bad_bytes == counts.unknown == 0
    assert {item.sysid for item in found} == {1, 51, 255}
