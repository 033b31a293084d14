"""Everything a receiver hears, spoiled: it stays up, writes nowhere else, and serves the next one.

One device goes wrong; beside it stands another, whose state must not change by it.
"""

import json
import re
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core import wire
from agent.core.errors import MalformedMessage
from agent.evidence.keys import envelope
from agent.evidence.manifest import PAYLOAD_TYPE
from agent.evidence.receipt import check_row_receipt
from agent.receiver.identity import MARK
from agent.receiver.index import FILE_NAME
from tests.evidence.handover import DEVICE, SITE
from tests.fuzz.hostile import NAMES, RUBBISH, TEXTS, TIMES, examples, spoiled
from tests.fuzz.site import KEY_NAME, Site, message, sha256
from tests.fuzz.test_decoder import GOOD
from tests.receiver.rig import Device, done, event, fid, payload

OTHER = "cam-2"
TABLES = ("message", "event", "incoming", "file", "receipt")
CONTENT = b"video" * 50
MOST_GROWTH_MIB = 64
_HEX = "[0-9a-f]{32}"
ALLOWED = re.compile(
    rf"{re.escape(FILE_NAME)}(-wal|-shm|-journal)?|{KEY_NAME}|{KEY_NAME[:-3]}pub"
    rf"|(incoming|{SITE})/({DEVICE}|{OTHER})/{_HEX}(\.[0-9a-f]{{12}})?(\.part|/[A-Za-z0-9][A-Za-z0-9._-]*)"
    rf"|{SITE}/{MARK}|rejected/({DEVICE}|{OTHER})-[A-Za-z0-9._-]+"
)


class Stage:
    """The receiver, the device that goes wrong, and the one beside it with a file half sent."""

    def __init__(self, folder):
        self.folder = folder
        self.site = Site(folder)
        self.centre = self.site.centre
        self.device = self.site.box.device
        self.other = Device(folder / "other", OTHER)
        self.other.register(self.centre.config.devices_dir)
        self.number = 0
        self.files, self.signed = self.device.clip(contents={"clip-1.mp4": CONTENT})
        self.offer = self.device.offer(self.files, self.signed)
        contents, signed = self.other.clip(contents={"clip-1.mp4": b"theirs" * 30})
        theirs = self.other.offer(contents, signed)
        half = contents["clip-1.mp4"][:90]
        self.said(f"file/{theirs['fid']}/offer", theirs, OTHER)
        self.said(f"file/{theirs['fid']}/0", half, OTHER)
        self.said("event/zone_enter", self.other.envelope(1), OTHER)
        self.centre.run.settle(lambda: not self.rows(OTHER)["incoming"])
        self.site.clock.advance(5)
        self.centre.hear()
        self.theirs, self.outside = self.rows(OTHER), self.around()

    def said(self, part, document, device=DEVICE):
        return self.centre.hear(message(part, document, device))

    def good(self):
        """Give one good message of each kind, by the topic's last part."""
        self.number += 1
        device, number = self.device, self.number
        state = {"state": "streaming", "since_utc_ms": 1, "detail": ""}
        beat, birth = GOOD["beat"], GOOD["birth"]
        return {
            "birth": device.envelope(number, "birth", birth, lane="state"),
            "death": {"sv": 1, "device": DEVICE, "boot": 1, "kind": "death"},
            "state/west": device.envelope(number, "state/west", state, lane="state"),
            "beat": device.envelope(number, "beat", beat, lane="telemetry"),
            "event/zone_enter": device.envelope(number, body=event(number)),
            "time": device.envelope(number, "time", GOOD["time"], lane="state"),
            "gap/file": device.envelope(number, "gap/file", GOOD["file_gap"], lane="state"),
            "position": device.envelope(number, "position", GOOD["position"], lane="telemetry"),
            "backfill/beat": device.envelope(number, "backfill/beat", beat, lane="backfill"),
            f"file/{self.offer['fid']}/offer": self.offer,
            f"file/{self.offer['fid']}/done": done(self.offer),
        }

    def serves(self):
        """Whether the next good event is stored and signed for."""
        self.number += 1
        good = self.device.envelope(self.number)
        for topic, content in self.said("event/zone_enter", good):
            if topic.endswith(f"{DEVICE}/receipt"):
                document = wire.decode("row_receipt", content)
                ids = check_row_receipt(document, self.centre.key.public, DEVICE)
                return good["id"] in ids
        return False

    def serves_files(self):
        """Whether a whole new file is stored and signed for."""
        self.number += 1
        files, signed = self.device.clip(seed=self.number, contents={"clip-1.mp4": CONTENT})
        offer = self.device.offer(files, signed, number=fid(self.number))
        root = f"file/{offer['fid']}"
        said = [
            *self.said(f"{root}/offer", offer),
            *self.said(f"{root}/0", CONTENT),
            *self.said(f"{root}/done", done(offer)),
        ]
        place = self.centre.place(signed, "clip-1.mp4")
        is_signed = any(topic.endswith(f"{root}/receipt") for topic, _ in said)
        return is_signed and place.read_bytes() == CONTENT

    def rows(self, device):
        return {table: self.centre.rows(table, device) for table in TABLES}

    def around(self):
        """Every file beside the store, with its hash."""
        store, box = self.centre.config.store_dir, self.site.box.state_dir
        return {
            str(path): sha256(path.read_bytes())
            for path in self.folder.rglob("*")
            if path.is_file() and not path.is_relative_to(store) and not path.is_relative_to(box)
        }

    def check(self):
        store = self.centre.config.store_dir
        for path in store.rglob("*"):
            assert not path.is_symlink()
            if path.is_file():
                assert ALLOWED.fullmatch(str(path.relative_to(store))), path
        assert self.rows(OTHER) == self.theirs
        found = self.around()
        assert {path: found.get(path) for path in self.outside} == self.outside
        new = set(found) - set(self.outside)
        assert all(path.startswith(str(self.device.folder / "clips")) for path in new), new
        for row in self.centre.rows("message"):
            assert row[0] in (DEVICE, OTHER)


@pytest.fixture
def stage(tmp_path):
    (tmp_path / "other").mkdir()
    staged = Stage(tmp_path)
    yield staged
    staged.site.close()


def rejected(stage):
    return sum(1 for _ in stage.centre.rows("rejected"))


def is_known(stage, content):
    """Whether a message has the id of one that came before: it is dropped, as a repeat is."""
    try:
        number = wire.decode("envelope", content)["id"]
    except MalformedMessage:
        return False
    return number in {row[1] for row in stage.centre.rows("message", DEVICE)}


@given(data=st.data())
@examples(120)
def test_a_good_message_with_one_thing_wrong(stage, data):
    good = stage.good()
    part = data.draw(st.sampled_from(sorted(good)))
    content = data.draw(spoiled(good[part]))
    before, stored = rejected(stage), len(stage.centre.rows("message"))
    answers = stage.said(part, content)
    is_taken = answers or len(stage.centre.rows("message")) > stored or part == "death"
    is_taken = is_taken or is_known(stage, content)
    if content and not is_taken and not part.endswith("done"):  # an unknown done has no answer
        assert rejected(stage) > before, "refused, and nobody told"
    stage.check()
    assert stage.serves()


@given(part=st.sampled_from(range(10)), content=RUBBISH)
@examples(60)
def test_rubbish_on_every_topic(stage, part, content):
    topic = sorted(stage.good())[part]
    before = rejected(stage)
    assert [one for one in stage.said(topic, content) if one[0].endswith("receipt")] == []
    assert rejected(stage) == before + bool(content)
    stage.check()
    assert stage.serves()


TOPICS = st.lists(
    st.sampled_from([*(name for name in NAMES if len(name) < 200), "file", "event", "offer", "0"])
    | st.text(st.characters(exclude_characters="+#/\0", exclude_categories=["Cs"]), max_size=6),
    max_size=6,
).map("/".join)


@given(topic=TOPICS, kind=st.sampled_from(range(10)), rooted=st.booleans())
@examples(80)
def test_good_messages_on_topics_that_nobody_may_use(stage, topic, kind, rooted):
    """Among them those of the other device and of none: what is in the body decides nothing."""
    topic = topic.encode(errors="ignore").decode()
    document = list(stage.good().values())[kind]
    root = f"outpost/1/{SITE}/" if rooted else ""
    _, content = message("", document)
    stage.centre.hear((root + topic, content))
    stage.check()
    assert stage.serves()


@given(data=st.data())
@examples(40)
def test_messages_of_one_device_on_the_topics_of_another(stage, data):
    part = data.draw(st.sampled_from(sorted(set(stage.good()) - {"death"})))
    stage.said(part, stage.good()[part], OTHER)
    stage.check()
    assert stage.serves()


KINDS = st.sampled_from(
    (
        *("birth", "beat", "time", "position", "state/outbox", "event/x", "command/x/status"),
        *("timer", "times/x", "time/x", "state", "state/outbox/x", "event", "events/x", "command"),
        *("command/x", "backfill/time", "backfill/event", "births", "sample", "file", "receipts"),
    )
)


@given(kind=KINDS, body=st.sampled_from(sorted(GOOD)), lane=st.sampled_from(("alarm", "file")))
@examples(100)
def test_any_kind_with_the_body_of_any_other(stage, kind, body, lane):
    stage.number += 1
    stage.said(kind, stage.device.envelope(stage.number, kind, GOOD[body], lane=lane))
    stage.check()
    assert stage.serves()


SIZES = st.sampled_from((0, 1, 249, 250, 251, 65_536, (1 << 20) + 1))
OFFSETS = st.sampled_from(
    (*("0", "1", "249", "250", "00", "-1", "+1", "1e3", "0x10", " 1", "٣", "²", "1_0"),
     *("9" * 15, "9" * 16, "9" * 17, "9" * 5000, str(1 << 53), str(1 << 63)))
)  # fmt: skip


@given(offset=OFFSETS, size=SIZES, is_open=st.booleans())
@examples(60)
def test_chunks_anywhere_of_any_size(stage, offset, size, is_open):
    if is_open:
        stage.said(f"file/{stage.offer['fid']}/offer", stage.offer)
    stage.said(f"file/{stage.offer['fid']}/{offset}", b"x" * size)
    part = stage.centre.config.store_dir / "incoming" / DEVICE / f"{stage.offer['fid']}.part"
    assert not part.exists() or part.stat().st_size <= len(CONTENT)
    stage.check()
    assert stage.serves()


CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "clip_id": st.sampled_from(NAMES) | st.just("e" * 32),
        "device": st.sampled_from((OTHER, *NAMES)),
        "site": st.sampled_from(("elsewhere", *NAMES)),
        "sources": st.sampled_from(((), (("a" * 64, -1),), (("", 0),) * 5000)),
        "missing_ms": st.sampled_from((-1, 1 << 70, 1)),
    },
)


@given(changes=CHANGES, name=st.sampled_from(NAMES), size=st.sampled_from((0, 249, 1 << 52)))
@examples(60)
def test_offers_with_a_manifest_that_the_device_signed_and_should_not_have(
    stage, changes, name, size
):
    """The signature is right: only the checks of its content stand between it and the store."""
    document = payload(stage.signed) | changes
    document["files"][0] |= {"name": name, "size_bytes": size}
    text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    signed = envelope(stage.device.key, PAYLOAD_TYPE, text)
    stage.number += 1
    number = fid(stage.number)
    offer = stage.offer | {"fid": number, "manifest": signed, "name": name, "size_bytes": size}
    said = [
        *stage.said(f"file/{number}/offer", json.dumps(offer).encode()),
        *stage.said(f"file/{number}/0", CONTENT),
        *stage.said(f"file/{number}/done", json.dumps(done(offer)).encode()),
    ]
    if any(topic.endswith("/receipt") for topic, _ in said):  # a plain name, and nothing else
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name)
        assert stage.centre.place(signed, name).read_bytes() == CONTENT
        assert document["site"] == SITE
        assert document["device"] == DEVICE
    stage.check()
    assert stage.serves()


def test_after_all_of_it_files_are_still_taken_and_memory_stays(stage):
    parts = sorted(stage.good())
    for part in parts:
        stage.said(part, b"{")
    before_mib = peak_mib()
    for _ in range(3 * TIMES):
        for part in parts:
            stage.centre.hear(*(message(part, text) for text in TEXTS))
    assert peak_mib() - before_mib < MOST_GROWTH_MIB
    stage.check()
    assert stage.serves()
    assert stage.serves_files()


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_a_replayed_message_changes_nothing_and_is_signed_for_again(stage):
    for _ in range(5):
        stage.said("event/zone_enter", stage.device.envelope(1))
        later = stage.device.envelope(1) | {"body": event(1, "open"), "seq": 900}
        stage.said("event/zone_enter", later)
    (row,) = stage.centre.rows("message", DEVICE)
    assert row[4] == 1
    (stored,) = stage.centre.rows("event", DEVICE)
    assert "closed" in stored
    assert stage.serves()
