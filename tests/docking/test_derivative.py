"""A rescued copy is a hand-over of its own: it says what it was made from, how, what it lacks."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agent import __version__
from agent.core import wire
from agent.core.clock import RealClock
from agent.core.errors import HashMismatch, IntegrityError, MalformedMessage, StorageError
from agent.docking.derivative import seal_rescued
from agent.docking.intake import Custodian
from agent.docking.probe import RescueFacts, rescue_in_child
from agent.evidence import manifest, verify
from agent.evidence.hashing import hash_file
from agent.evidence.keys import DeviceKey
from agent.evidence.manifest import FileEntry, ManifestFacts

ORIGINAL_ID, COPY_ID = "a" * 32, "b" * 32
CLOCK_STATE = {"source": "ntp", "error_ms": 5}


@pytest.fixture
def who(tmp_path, store) -> Custodian:
    key = DeviceKey.load_or_create(tmp_path / "device.key")
    return Custodian("dock-1", "plaza", tmp_path, store, key, RealClock(), lambda: CLOCK_STATE)


@pytest.fixture
def original(stock, tmp_path, who) -> Path:
    folder = tmp_path / "footage" / ORIGINAL_ID
    folder.mkdir(parents=True)
    (folder / "recording.mp4").write_bytes(stock.original("h264-b").read_bytes()[:-40_000])
    entry = FileEntry(
        "recording.mp4", "recording", "video/mp4", hash_file(folder / "recording.mp4")
    )
    facts = ManifestFacts(
        clip_id=ORIGINAL_ID,
        device=who.device,
        site=who.site,
        camera="bc0001",
        event_ids=(),
        kind="bodycam",
        rule="docking",
        model="DSJ-V8 2.4",
        start_utc_ms=1_790_000_000_000,
        end_utc_ms=1_790_000_000_000,
        missing_ms=0,
        clock=CLOCK_STATE,
        camera_offset_ms=25_200_310,
        sources=(),
        custody_seq=0,
        custody_hash="0" * 64,
    )
    manifest.seal(folder, facts, [entry], who.key, who.clock)
    return folder


@pytest.fixture
def video(tmp_path) -> Path:
    return tmp_path / "rescued.part"


@pytest.fixture
def facts(stock, original, video) -> RescueFacts:
    made = rescue_in_child(original / "recording.mp4", stock.good("h264-b"), video)
    assert made.why == ""
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_copy_names_the_original_and_what_is_missing(stock, original, video, facts, who):
    before = contents(original)
    sealed = seal_rescued(original, video, facts, COPY_ID, who)
    folder = who.state_dir / sealed.handover.folder
    assert contents(original) == before
    assert sorted(contents(folder)) == ["manifest.json", "recording.mp4"]
    assert sealed.sha256 == hash_file(folder / "recording.mp4").sha256
    assert (sealed.footage_id, sealed.flags) == (COPY_ID, ("rescued",))

    document = manifest.read(json.loads((folder / "manifest.json").read_text()), who.key.public)
    parent = json.loads(before["manifest.json"])
    told = document["derived_from"]
    assert told["clip_id"] == ORIGINAL_ID
    assert told["manifest_sha256"] == manifest.payload_sha256(parent)
    assert told["files"] == [
        {
            "name": "recording.mp4",
            "parent_name": "recording.mp4",
            "parent_sha256": hash_file(original / "recording.mp4").sha256,
        }
    ]
    assert (told["tool"], told["version"]) == ("outpost rescue", __version__)
    assert told["rescue"] == {
        "way": "search",
        "pictures": facts.pictures,
        "left_out": facts.left_out,
        "lost_bytes": facts.lost_bytes,
        "lost_ms": facts.lost_ms,
        "has_sound": False,
        "reference_sha256": hash_file(stock.good("h264-b")).sha256,
    }
    same = ("camera", "kind", "rule", "model", "start_utc_ms", "camera_offset_ms", "clock")
    theirs = manifest.read(parent, who.key.public)
    assert {name: document[name] for name in same} == {name: theirs[name] for name in same}


def test_verify_says_what_it_is_without_the_agent(original, video, facts, who):
    seal_rescued(original, video, facts, COPY_ID, who)
    report = verify.verify(who.state_dir / "footage", who.key.public)
    assert report.ok, report.first_wrong
    assert f"{COPY_ID}: a copy of clip {ORIGINAL_ID} (manifest " in report.text()
    assert f"made playable ({facts.pictures} pictures, without sound, about" in report.text()
    path = who.state_dir / "footage" / COPY_ID / "recording.mp4"
    path.write_bytes(path.read_bytes()[:-1])
    assert "recording.mp4" in verify.verify(path.parent, who.key.public).first_wrong


@pytest.mark.parametrize("killed_at", ["moved", "sealed", "in place"])
def test_a_kill_on_the_way_loses_nothing(killed_at, original, video, facts, who):
    pictures = video.read_bytes()
    if killed_at == "in place":
        seal_rescued(original, video, facts, COPY_ID, who)
    else:
        work = who.state_dir / "work" / COPY_ID
        work.mkdir(parents=True)
        video.replace(work / "recording.mp4")
        if killed_at == "sealed":
            (work / "manifest.json").write_text("half")
    sealed = seal_rescued(original, video, facts, COPY_ID, who)
    folder = who.state_dir / sealed.handover.folder
    assert (folder / "recording.mp4").read_bytes() == pictures
    assert verify.verify(folder, who.key.public).ok
    assert list((who.state_dir / "work").iterdir()) == []


def test_a_copy_of_other_bytes_is_refused(original, video, facts, who):
    with pytest.raises(HashMismatch, match="made of ffff"):
        seal_rescued(original, video, replace(facts, original_sha256="f" * 64), COPY_ID, who)
    assert video.exists()
    assert not (who.state_dir / "footage" / COPY_ID).exists()


def test_a_copy_of_a_copy_is_refused(original, video, facts, who, tmp_path):
    sealed = seal_rescued(original, video, facts, COPY_ID, who)
    with pytest.raises(IntegrityError, match="no recording of a camera"):
        seal_rescued(who.state_dir / sealed.handover.folder, video, facts, "c" * 32, who)


def test_an_original_that_another_key_signed_is_refused(original, video, facts, who, tmp_path):
    other = replace(who, key=DeviceKey.load_or_create(tmp_path / "other.key"))
    with pytest.raises(IntegrityError, match="signature"):
        seal_rescued(original, video, facts, COPY_ID, other)
    with pytest.raises(IntegrityError):
        seal_rescued(tmp_path / "nowhere", video, facts, COPY_ID, who)


def test_facts_that_no_manifest_takes_are_refused(original, video, facts, who):
    with pytest.raises(MalformedMessage, match="reference_sha256"):
        seal_rescued(original, video, replace(facts, reference_sha256="x"), COPY_ID, who)


def test_a_copy_that_is_gone_is_refused(original, video, facts, who):
    video.unlink()
    with pytest.raises(StorageError):
        seal_rescued(original, video, facts, COPY_ID, who)


def test_a_manifest_tells_either_masks_or_a_rescue(original, video, facts, who):
    sealed = seal_rescued(original, video, facts, COPY_ID, who)
    document = manifest.read(sealed.handover.manifest, who.key.public)
    mask = {"name": "window", "points_ppm": [[0, 0], [9, 0], [9, 9]]}
    for change in ({"masks": [mask]}, {"rescue": None}):
        told = {**document["derived_from"], **change}
        told = {name: value for name, value in told.items() if value is not None}
        with pytest.raises(MalformedMessage):
            wire.check("manifest", {**document, "derived_from": told})
