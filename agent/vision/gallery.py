"""One HTML page of a review: the empty scene with everything drawn on it, then a picture a row.

The page stands alone: pictures are in it, there is no script, and nothing is loaded from anywhere.
Drawings are SVG over the pictures, so that they can be switched off.
"""

import base64
import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final

from agent.core.model import Event, Track
from agent.vision.config import CameraConfig
from agent.vision.review import Broken, Shot, Totals

MAX_ROWS: Final = 400  # of a page that a phone can still hold; the rest is counted

_UNITS: Final = 1000  # of the drawing, across the picture
_COLOURS: Final = ("#3ddc84", "#4cc9f0", "#ffd166", "#f78c6b", "#c792ea", "#ff6b9a")
_ARROW: Final = 14
_US_PER_S: Final = 1_000_000
_MINUTE_S: Final = 60

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#5b6570;--page:#f4f5f7;--card:#fff;
--edge:#d9dde2}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#9aa4af;--page:#15181c;--card:#1e2227;
--edge:#343a41}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.45 system-ui,sans-serif}
main{max-width:1180px;margin:0 auto;padding:12px}
h1{font-size:1.35rem;margin:.3rem 0}h2{font-size:1.05rem;margin:1.4rem 0 .5rem}
p{margin:.3rem 0}.soft{color:var(--soft)}
article{background:var(--card);border:1px solid var(--edge);border-radius:10px;overflow:hidden;
margin:12px 0}
figure{margin:0;position:relative;background:#000;line-height:0}
figure img{width:100%;height:auto;display:block}
figure svg{position:absolute;inset:0;width:100%;height:100%}
.facts{padding:12px 14px}
.facts h3{margin:0 0 .4rem;font-size:1rem}
dl{display:grid;grid-template-columns:auto 1fr;gap:.15rem .9rem;margin:0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .9rem .3rem 0;border-bottom:1px solid var(--edge);
vertical-align:top}
th{font-weight:600}.n{text-align:right}
.key{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.45em}
nav{position:sticky;top:0;z-index:1;background:var(--page);padding:8px 0;display:flex;
flex-wrap:wrap;gap:4px 18px}
label{display:inline-flex;gap:.4em;align-items:center;min-height:32px}
svg .shape{fill-opacity:.12;stroke-width:2.5;vector-effect:non-scaling-stroke}
svg .mask{fill:none;stroke:#fff;stroke-dasharray:6 5;stroke-width:1.5;
vector-effect:non-scaling-stroke}
svg .stroke{fill:none;stroke-width:2.5;vector-effect:non-scaling-stroke}
svg .path{fill:none;stroke:#fff;stroke-width:2.5;vector-effect:non-scaling-stroke}
svg .under{fill:none;stroke:#000;stroke-opacity:.6;stroke-width:5;
vector-effect:non-scaling-stroke}
svg .box{fill:none;stroke:#fff;stroke-width:2;vector-effect:non-scaling-stroke}
svg text{font:600 34px system-ui,sans-serif;paint-order:stroke;stroke:#000;stroke-width:7px;
stroke-linejoin:round;fill:#fff}
body:has(#zones:not(:checked)) .zone,body:has(#names:not(:checked)) svg text,
body:has(#paths:not(:checked)) .track{display:none}
@media(min-width:820px){
article.row{display:grid;grid-template-columns:minmax(0,3fr) minmax(250px,2fr)}
svg text{font-size:21px;stroke-width:4.5px}}
"""


class Gallery:
    """Gathers rows, and makes the page of them.

    Args:
        camera: whose zones and rules.
        source: what was looked at, and under which configuration, in words.
    """

    def __init__(self, camera: CameraConfig, source: str) -> None:
        self._camera = camera
        self._source = source
        self._rows: list[str] = []
        self._left_out = 0
        self._events: Counter[str] = Counter()

    def add(self, shot: Shot, size_px: tuple[int, int]) -> None:
        """Take a shot; beyond `MAX_ROWS` it is only counted."""
        if shot.event is not None:
            self._events[shot.event.rule] += 1
        if len(self._rows) >= MAX_ROWS:
            self._left_out += 1
            return
        drawing = _Drawing(self._camera, size_px)
        picture = _picture(shot.jpeg, size_px, drawing.of(shot)) if shot.jpeg else ""
        self._rows.append(f'<article class="row">{picture}{_facts(shot)}</article>')

    def page(self, scene: bytes | None, totals: Totals) -> str:
        """Give the page's HTML."""
        title = f"{self._camera.id}: {escape(self._source)}"
        return "".join(
            (
                '<!doctype html><html lang="en"><head><meta charset="utf-8">',
                '<meta name="viewport" content="width=device-width,initial-scale=1">',
                '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';',
                " img-src data:; style-src 'unsafe-inline'\">",
                f"<title>{title}</title><style>{_STYLE}</style></head><body><main>",
                f"<h1>{escape(self._camera.id)}</h1><p>{escape(self._source)}</p>",
                f'<p class="soft">{_extent(totals)}</p>',
                _SWITCHES,
                self._scene(scene, totals.size_px),
                self._rules(totals),
                _broken(totals.broken),
                f"<h2>Pictures</h2>{''.join(self._rows) or '<p>None.</p>'}",
                f"<p>{self._left_out} more are in events.jsonl.</p>" if self._left_out else "",
                "</main></body></html>\n",
            )
        )

    def _scene(self, scene: bytes | None, size_px: tuple[int, int]) -> str:
        if scene is None:
            return ""
        drawing = _Drawing(self._camera, size_px)
        legend = "".join(
            f'<dt><span class="key" style="background:{colour}"></span>{escape(name)}</dt>'
            f"<dd>{what}</dd>"
            for name, colour, what in drawing.legend
        )
        facts = f'<div class="facts"><h3>The empty scene</h3><dl>{legend}</dl></div>'
        return f'<article class="row">{_picture(scene, size_px, drawing.places)}{facts}</article>'

    def _rules(self, totals: Totals) -> str:
        hours = totals.seen_us / _US_PER_S / 3600
        rows = "".join(
            f"<tr><td>{escape(rule.settings.name)}</td><td>{escape(rule.kind)}</td>"
            f'<td class="n">{self._events[rule.settings.name]}</td>'
            f'<td class="n">{_an_hour(self._events[rule.settings.name], hours)}</td></tr>'
            for rule in self._camera.rules
        )
        return (
            '<h2>Rules</h2><div class="wide"><table><tr><th>rule</th><th>kind</th>'
            '<th class="n">events</th><th class="n">an hour</th></tr>'
            f"{rows}</table></div>"
        )


class _Drawing:
    """What is drawn over the pictures of a camera."""

    def __init__(self, camera: CameraConfig, size_px: tuple[int, int]) -> None:
        self._height = _UNITS * size_px[1] / size_px[0]
        self.legend: list[tuple[str, str, str]] = []
        drawn = []
        for number, zone in enumerate(camera.zones):
            colour = _COLOURS[number % len(_COLOURS)]
            self.legend.append((zone.name, colour, "zone"))
            drawn.append(
                f'<polygon class="shape" points="{self._points(zone.points)}" fill="{colour}"'
                f' stroke="{colour}"/>{self._text(_middle(zone.points), zone.name)}'
            )
        for number, line in enumerate(camera.lines, start=len(camera.zones)):
            colour = _COLOURS[number % len(_COLOURS)]
            self.legend.append((line.name, colour, "line, from its start to the arrow"))
            drawn.append(self._arrow(line.start, line.end, colour))
            drawn.append(self._text(line.start, line.name))
        for mask in camera.masks:
            kind = "mask, blind" if mask.is_blind else "mask"
            self.legend.append((mask.name, "#000", kind))
            drawn.append(
                f'<polygon class="mask" points="{self._points(mask.points)}"/>'
                f"{self._text(_middle(mask.points), mask.name)}"
            )
        self.places = f'<g class="zone">{"".join(drawn)}</g>'

    def of(self, shot: Shot) -> str:
        """Give the places and, over them, who was there and which way they went."""
        tracks = shot.tracks
        paths: list[Sequence[tuple[float, float]]]
        if shot.event is None:
            paths = [[point.box.foot for point in track.history] for track in tracks]
        else:
            tracks = tuple(item for item in tracks if item.track_id in shot.event.track_ids)
            paths = [[(x, y) for _, x, y in shot.event.path]]
        drawn = [self._path(path) for path in paths if path]
        drawn += [self._box(track) for track in tracks]
        return f'{self.places}<g class="track">{"".join(drawn)}</g>'

    def _path(self, path: Sequence[tuple[float, float]]) -> str:
        points = self._points(path)
        (x, y), (end_x, end_y) = self._at(path[0]), self._at(path[-1])
        return (
            f'<polyline class="under" points="{points}"/><polyline class="path" points="{points}"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="#fff"/>'
            f'<circle cx="{end_x:.1f}" cy="{end_y:.1f}" r="7" fill="#e5484d" stroke="#fff"/>'
        )

    def _box(self, track: Track) -> str:
        (x, y), box = self._at((track.box.x, track.box.y)), track.box
        width, height = box.w * _UNITS, box.h * self._height
        text = f"{track.label} {track.score:.2f}"
        return (
            f'<rect class="box" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
            f"{self._text((box.x, box.y - 0.012), text)}"
        )

    def _arrow(self, start: tuple[float, float], end: tuple[float, float], colour: str) -> str:
        (x, y), (end_x, end_y) = self._at(start), self._at(end)
        angle = math.atan2(end_y - y, end_x - x)
        wings = " ".join(
            f"{end_x - _ARROW * math.cos(angle + turn):.1f},"
            f"{end_y - _ARROW * math.sin(angle + turn):.1f}"
            for turn in (0.5, -0.5)
        )
        return (
            f'<line class="stroke" x1="{x:.1f}" y1="{y:.1f}" x2="{end_x:.1f}" y2="{end_y:.1f}"'
            f' stroke="{colour}"/><polygon points="{end_x:.1f},{end_y:.1f} {wings}"'
            f' fill="{colour}"/>'
        )

    def _text(self, spot: tuple[float, float], text: str) -> str:
        """Write at a spot; near the right edge to its left."""
        x, y = self._at(spot)
        is_right = x > _UNITS * 0.8
        anchor = ' text-anchor="end"' if is_right else ""
        return f'<text x="{x:.1f}" y="{max(36.0, y):.1f}"{anchor}>{escape(text)}</text>'

    def _points(self, spots: Sequence[tuple[float, float]]) -> str:
        return " ".join("{:.1f},{:.1f}".format(*self._at(spot)) for spot in spots)

    def _at(self, spot: tuple[float, float]) -> tuple[float, float]:
        return spot[0] * _UNITS, spot[1] * self._height


_SWITCHES: Final = (
    "<nav>"
    '<label><input type="checkbox" id="zones" checked>zones, lines, masks</label>'
    '<label><input type="checkbox" id="paths" checked>boxes and paths</label>'
    '<label><input type="checkbox" id="names" checked>names</label>'
    "</nav>"
)


def _picture(jpeg: bytes, size_px: tuple[int, int], drawing: str) -> str:
    width, height = size_px
    content = base64.b64encode(jpeg).decode()
    return (
        f'<figure><img alt="" width="{width}" height="{height}" loading="lazy"'
        f' src="data:image/jpeg;base64,{content}"><svg viewBox="0 0 {_UNITS}'
        f' {_UNITS * height / width:.2f}" preserveAspectRatio="none">{drawing}</svg></figure>'
    )


def _facts(shot: Shot) -> str:
    event = shot.event
    name = shot.recording.path.name
    rows = [("file", name), ("picture at", _clock(shot.at_us))]
    if shot.recording.start_utc_ms is not None:
        utc_ms = shot.recording.start_utc_ms + shot.at_us // 1000
        rows.append(("UTC", datetime.fromtimestamp(utc_ms / 1000, UTC).isoformat(" ", "seconds")))
    title = "At a regular time"
    if event is not None:
        title = f"{event.kind}: {event.rule}"
        rows += _event_rows(event)
    listed = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in rows)
    return f'<div class="facts"><h3>{escape(title)}</h3><dl>{listed}</dl></div>'


def _event_rows(event: Event) -> list[tuple[str, str]]:
    rows = []
    if event.label:
        rows.append(("object", f"{event.label}, score {event.score:.2f}"))
    if event.end_utc_ns is not None:
        rows.append(("lasted", f"{(event.end_utc_ns - event.start_utc_ns) / 1e9:.1f} s"))
    if event.reason:
        rows.append(("ended", event.reason))
    return rows + [
        (key.replace("_", " "), f"{value:.4g}") for key, value in sorted(event.measured.items())
    ]


def _extent(totals: Totals) -> str:
    seconds = totals.seen_us // _US_PER_S
    minutes, rest = divmod(seconds, _MINUTE_S)
    return f"{totals.files} files, {minutes} min {rest} s, {totals.pictures} pictures"


def _broken(broken: Sequence[Broken]) -> str:
    if not broken:
        return ""
    rows = "".join(
        f"<tr><td>{escape(item.path.name)}</td><td>{escape(item.reason)}</td></tr>"
        for item in broken
    )
    return f'<h2>Not read to the end</h2><div class="wide"><table>{rows}</table></div>'


def _middle(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Give a spot for a polygon's name: left in its upper part."""
    x, y = min(points, key=lambda point: point[0] + point[1])
    return x + 0.01, y + 0.05


def _an_hour(count: int, hours: float) -> str:
    return f"{count / hours:.1f}" if hours else "-"


def _clock(at_us: int) -> str:
    minutes, seconds = divmod(at_us / _US_PER_S, _MINUTE_S)
    return f"{minutes:02.0f}:{seconds:04.1f}"
