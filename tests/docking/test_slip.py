"""The officer's receipt: what it says is so, and a false one is found out."""

import base64
import json
import re
from dataclasses import replace
from datetime import UTC, timedelta, timezone

import pytest

from agent.core.errors import ConfigError, HashMismatch, StorageError
from agent.docking import slip as slips
from agent.docking import tongues
from agent.evidence import manifest
from tests.docking.dockside import DEVICE, Camera, Dockside


@pytest.fixture
def side(tmp_path):
    made = Dockside(tmp_path)
    yield made
    made.close()


@pytest.fixture
def docked(side, tmp_path):
    camera = Camera(tmp_path, "BC0001")
    camera.film("DCIM/MOV_0001.mp4", 200_000)
    camera.film("DCIM/MOV_0002.mp4", 300_000)
    camera.plug(side.slots["1"])
    side.rest()
    return camera


def read(side, which="bc0001"):
    with side.store.reading() as connection:
        return slips.read(connection, side.state_dir, slips.find(connection, which))


def check(side, scanned):
    with side.store.reading() as connection:
        return slips.check(connection, side.state_dir, DEVICE, scanned)


def test_safe_in_the_dock_then_at_the_centre(side, docked):
    slip = read(side)
    assert (slip.camera, slip.files, slip.left, slip.size_bytes) == ("bc0001", 2, 0, 500_000)
    assert slip.where == "dock"
    first = slips.code(slip)
    text = slips.text(slip, "en", UTC)
    assert "SAFE IN DOCK\n" in text
    assert slip.list_sha256[:10] in text
    assert max(len(line) for line in text.splitlines()) == slips.WIDTH
    side.sign()
    side.rest()
    assert docked.files() == {}, "wiped: the slip still counts what was docked"
    slip = read(side)
    assert (slip.where, slip.files) == ("centre", 2)
    assert "AT THE CENTRE SINCE\n20" in slips.text(slip, "en", UTC)
    assert check(side, slips.code(slip)).is_true
    then = check(side, first)
    assert then.is_true, "a slip of before is as true as it was"
    assert then.words[0].startswith("true; now: all at the centre since 20")


def test_a_docking_is_named_by_its_id_or_its_camera(side, docked):
    session = read(side).session
    for which in (session, session[:8], "bc0001", "BC0001"):
        assert read(side, which).session == session
    for which in ("bc0002", session[:4], "ffffff", "", "%"):
        with pytest.raises(ConfigError, match="allowed: its id"):
            read(side, which)


def test_the_slip_of_before_stays_when_the_camera_comes_again(side, docked):
    before = read(side)
    docked.pull()
    side.turn()
    docked.film("DCIM/MOV_0003.mp4", 1000)
    docked.plug(side.slots["2"])
    side.rest()
    assert read(side, before.session) == before
    assert read(side).files == 3


@pytest.mark.parametrize(
    ("part", "value", "word"),
    [
        ("list", "0" * 10, "its list begins with 0000000000"),
        ("files", "7", "it says 7 files; the list has 2"),
        ("where", "centre", "here that is not known"),
        ("where", "part", "what was not copied"),
        ("session", "f" * 32, "not sealed yet"),
    ],
)
def test_a_false_slip_is_found_out(side, docked, part, value, word):
    names = ("device", "session", "list", "files", "where", "time")
    said = dict(zip(names, slips.code(read(side)).split(" ")[2:], strict=True))
    found = check(side, " ".join(["OUTPOST-SLIP 1", *(said | {part: value}).values()]))
    assert not found.is_true
    assert word in found.words[0]


def test_a_slip_of_another_dock_and_what_is_no_slip(side, docked):
    other = slips.code(read(side)).replace(DEVICE, "dock-2")
    assert check(side, other) == slips.Checked(False, ["a slip of dock-2; this dock is dock-1"])
    for text in ("", "https://example.org", other + " and more", "OUTPOST-SLIP 2 " + other[15:]):
        with pytest.raises(ConfigError, match="allowed: OUTPOST-SLIP"):
            check(side, text)


def test_a_list_that_was_changed_gives_no_slip(side, docked):
    slip = read(side)
    path = side.state_dir / "sessions" / slip.session / "session.json"
    signed = json.loads(path.read_text())
    signed["payload"] = signed["payload"][::-1]
    path.write_text(json.dumps(signed))
    with pytest.raises(HashMismatch):
        read(side)
    assert not check(side, slips.code(slip)).is_true
    path.unlink()
    with pytest.raises(StorageError, match="cannot be read"):
        read(side)


def test_before_all_is_sealed_there_is_no_slip(side, tmp_path):
    camera = Camera(tmp_path, "BC0001")
    camera.film("MOV_0001.mp4", 1000)
    camera.plug(side.slots["1"])
    side.turn(2)
    (session,) = side.rows("SELECT id FROM dock_session")[0]
    with pytest.raises(StorageError, match="wait until its slot is not Busy"):
        read(side, session)


@pytest.mark.parametrize("language", tongues.LANGUAGES)
def test_the_paper_is_narrow_in_every_tongue(side, docked, language):
    slip = read(side)
    long = replace(
        slip,
        officer="Бауыржан Нұрлыбекұлы Әбдірахманов, 2-ші жасақ",
        site="s" * 60,
        clock_offset_ms=25_200_000,
        left=3,
    )
    zone = timezone(timedelta(hours=5, minutes=30))
    text = slips.text(long, language, zone)
    assert max(len(line) for line in text.splitlines()) == slips.WIDTH
    assert "+0530" in text
    assert "2/5" in text
    assert tongues.text(language, "not_all") in text
    assert "+7 h 00 min" in text


def test_the_times_are_put_right_by_the_cameras_clock(side, docked):
    slip = read(side)
    session = slip.session
    path = side.state_dir / "sessions" / session / "session.json"
    raw = json.loads(path.read_text())
    payload = json.loads(base64.b64decode(raw["payload"]))
    payload["camera_offset_ms"] = 3_600_000
    raw["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    path.write_text(json.dumps(raw))
    digest = manifest.payload_sha256(raw)
    side.store.write(
        lambda connection: connection.execute(
            "UPDATE dock_session SET manifest_sha256 = ?", (digest,)
        )
    )
    shifted = read(side)
    assert slip.first_utc_ms - shifted.first_utc_ms == 3_600_000
    assert slip.last_utc_ms - shifted.last_utc_ms == 3_600_000


def test_a_camera_with_nothing_on_it(side, tmp_path):
    camera = Camera(tmp_path, "BC0002")
    camera.plug(side.slots["1"])
    side.rest()
    slip = read(side, "bc0002")
    assert (slip.files, slip.first_utc_ms, slip.where) == (0, None, "dock")
    assert re.search(r"^Files +0/0$", slips.text(slip, "en", UTC), re.MULTILINE)
