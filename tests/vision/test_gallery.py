"""The page: whole, alone, safe against names, and drawn where the configuration says."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from agent.core.model import Box, Event, EventState, Sight, Track, TrackPoint
from agent.vision import gallery
from agent.vision.config import MaskConfig
from agent.vision.gallery import Gallery
from agent.vision.review import Broken, Recording, Shot, Totals
from tests.vision.cameras import plaza

SIZE = (800, 400)
JPEG = b"\xff\xd8picture\xff\xd9"
CAMERA = plaza(masks=(MaskConfig("house", ((0.1, 0.1), (0.4, 0.1), (0.4, 0.4))),))
EVENT = Event(
    event_id="e" * 32,
    camera="plaza",
    kind="zone_enter",
    rule="on-crossing",
    state=EventState.CLOSED,
    start_utc_ns=2_000_000_000,
    end_utc_ns=5_500_000_000,
    label="person",
    score=0.77,
    track_ids=(4,),
    measured={"dwell_s": 3.5},
    model="eye@1",
    reason="left",
    path=((2000, 0.25, 0.5), (3000, 0.5, 0.75)),
)


def track(track_id: int, x: float) -> Track:
    box = Box(x, 0.25, 0.1, 0.25)
    points = (
        TrackPoint(0, Box(x - 0.1, 0.25, 0.1, 0.25), Sight.DETECTED),
        TrackPoint(1, box, Sight.DETECTED),
    )
    return Track(track_id, "person", 0.5, box, 1.0, 0.0, points)


def shot(event: Event | None = EVENT, name: str = "a.mp4", **parts) -> Shot:
    tracks = (track(4, 0.5), track(5, 0.8))
    return Shot(Recording(Path("/in") / name, **parts), 65_400_000, JPEG, tracks, event)


def page(*shots: Shot, camera=CAMERA, scene=JPEG, totals=None, source="in under box.toml") -> str:
    made = Gallery(camera, source)
    for item in shots:
        made.add(item, SIZE)
    return made.page(scene, totals or Totals(2, 300, 3_600_000_000, SIZE))


class Tree(HTMLParser):
    """Notes every tag, and whether each that opens is closed in order."""

    VOID = frozenset({"meta", "img", "input", "polygon", "polyline", "circle", "line", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]


def test_the_page_is_whole_and_stands_alone():
    text = page(shot(), shot(None))
    tree = Tree(text)
    assert tree.all("script") == []
    assert "http" not in text.replace("http-equiv", "")
    assert all(item["src"].startswith("data:image/jpeg;base64,") for item in tree.all("img"))
    assert not {"href", "onload", "onerror", "onclick"} & {
        key for _, attrs in tree.tags for key in attrs
    }
    assert "default-src 'none'" in text
    assert len(tree.all("article")) == 3
    assert "url(" not in text


def test_zones_lines_and_masks_are_drawn_where_they_are():
    tree = Tree(page())
    (scene,) = tree.all("svg")
    assert scene["viewbox"] == "0 0 1000 500.00"
    points = [item["points"] for item in tree.all("polygon")]
    assert "300.0,175.0 720.0,175.0 800.0,400.0 250.0,400.0" in points
    assert "100.0,50.0 400.0,50.0 400.0,200.0" in points
    (line,) = tree.all("line")
    assert [line[key] for key in ("x1", "y1", "x2", "y2")] == ["500.0", "100.0", "500.0", "475.0"]


def test_an_event_shows_its_own_object_path_and_figures():
    text = page(shot(), scene=None)
    tree = Tree(text)
    assert [item["points"] for item in tree.all("polyline")] == ["250.0,250.0 500.0,375.0"] * 2
    (box,) = tree.all("rect")
    assert [box[key] for key in ("x", "y", "width", "height")] == [
        "500.0",
        "125.0",
        "100.0",
        "125.0",
    ]
    for told in (
        "zone_enter: on-crossing",
        "01:05.4",
        "person, score 0.77",
        "3.5 s",
        "left",
        "a.mp4",
    ):
        assert told in text
    assert "dwell s" in text


def test_a_regular_picture_shows_everybody():
    tree = Tree(page(shot(None), scene=None))
    assert len(tree.all("rect")) == 2
    assert len(tree.all("polyline")) == 4


def test_a_recording_with_a_known_time_says_it():
    assert "2023-11-14 22:14:25" in page(shot(start_utc_ms=1_700_000_000_000))


def test_rules_are_counted_and_rated():
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", page(shot(), shot(), shot(None)))
    assert cells[:4] == ["on-crossing", "zone_enter", "2", "2.0"]
    assert cells[4:8] == ["over-kerb", "line_cross", "0", "0.0"]


def test_broken_files_are_told():
    totals = Totals(1, 1, 1, SIZE, [Broken(Path("/in/bad.mp4"), "no video in it")])
    text = page(totals=totals)
    assert "bad.mp4" in text
    assert "no video in it" in text


def test_names_cannot_break_out():
    evil = "<script>alert(1)</script>\"'&.mp4"
    event = replace(EVENT, reason=evil, label=evil, rule=evil)
    totals = Totals(1, 1, 1, SIZE, [Broken(Path("/in") / "<b>.mp4", evil)])
    text = page(shot(event, name=evil), totals=totals, source=evil)
    tree = Tree(text)
    assert tree.all("script") == tree.all("b") == []


def test_a_page_stays_bounded_and_says_what_is_not_on_it(monkeypatch):
    monkeypatch.setattr(gallery, "MAX_ROWS", 3)
    text = page(*[shot()] * 5, scene=None)
    assert len(Tree(text).all("article")) == 3
    assert "2 more are in events.jsonl" in text
    assert '<td class="n">5</td>' in text


def test_an_empty_review_still_is_a_page():
    text = page(scene=None)
    Tree(text)
    assert "None." in text
