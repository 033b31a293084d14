"""Things put down and taken away, rendered over real footage, with what must not be taken for it.

As `picture_faults`: each maker gives one variant from its seed. People who were drawn are told in
`Shot.people`, as a perfect detector would; those of the footage are not.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final, cast

import cv2
import numpy as np

from firmware_sim.picture_faults import (
    BEGIN_S,
    HEIGHT_PX,
    WIDTH_PX,
    Image,
    Paint,
    Plan,
    Rect,
    Truth,
)

LEFT_S: Final = 15.0  # the rules are played with these
REMOVED_S: Final = 45.0
GROUND: Final = (0.12, 0.55, 0.76, 0.35)  # where things are put: lawn, plaza, floor
DARKEST: Final = 20.0  # grey levels of a thing
LIGHTEST: Final = 235.0
MIDDLE: Final = 0.5
MARGIN: Final = 0.03  # of the picture: nobody is drawn nearer to its sides

_PERSON_W: Final = 0.05
_PERSON_H: Final = 0.28


def _pixels(rect: Rect) -> tuple[int, int, int, int]:
    x, y, w, h = rect
    return round(x * WIDTH_PX), round(y * HEIGHT_PX), round(w * WIDTH_PX), round(h * HEIGHT_PX)


def _spot(dice: np.random.Generator) -> tuple[float, float]:
    x, y, w, h = GROUND
    return x + float(dice.uniform(0, w)), y + float(dice.uniform(0, h))


def _bag(dice: np.random.Generator, spot: tuple[float, float]) -> Rect:
    """A bag that stands on the spot, 9 to 20 pixels wide."""
    w, h = dice.uniform(9, 20) / WIDTH_PX, dice.uniform(8, 16) / HEIGHT_PX
    return spot[0] - w / 2, spot[1] - h, float(w), float(h)


def _thing(dice: np.random.Generator) -> Callable[[Image, Rect], None]:
    """Give what draws a body with a lit top, a dark side and a strap, unlike the ground's grey."""
    step = float(dice.choice([-1, 1]) * dice.uniform(45, 90))

    colours: list[float] = []  # chosen when it is first put down

    def draw(picture: Image, rect: Rect) -> None:
        x, y, w, h = _pixels(rect)
        ground = float(picture[max(0, y - 2) : y + h + 2, max(0, x - 2) : x + w + 2].mean())
        unlike = ground + step if DARKEST < ground + step < LIGHTEST else ground - step
        colours.append(min(240.0, max(8.0, unlike)))
        colour = colours[0]
        cv2.rectangle(picture, (x, y), (x + w - 1, y + h - 1), int(colour), -1)
        cv2.rectangle(picture, (x, y), (x + w - 1, y + h // 4), int(min(255, colour + 25)), -1)
        cv2.line(picture, (x + w // 3, y), (x + w // 2, y + h - 1), int(max(0, colour - 30)), 1)

    return draw


def _person(picture: Image, rect: Rect, shade: int) -> None:
    x, y, w, h = _pixels(rect)
    head = (x + w // 2, y + h // 10)
    cv2.ellipse(picture, head, (max(1, w // 4), h // 10), 0, 0, 360, shade + 60, -1)
    cv2.rectangle(picture, (x, y + h // 5), (x + w, y + h * 3 // 5), shade, -1)
    cv2.rectangle(picture, (x + w // 5, y + h * 3 // 5), (x + w * 4 // 5, y + h), shade + 25, -1)


def _standing(foot: tuple[float, float]) -> Rect:
    return foot[0] - _PERSON_W / 2, foot[1] - _PERSON_H, _PERSON_W, _PERSON_H


def _owner(
    dice: np.random.Generator, spot: tuple[float, float], stays_s: float
) -> tuple[Callable[[float], tuple[Rect, ...]], int]:
    """Somebody who comes to the spot at `BEGIN_S`, stays, and goes as they came."""
    side = 1 if spot[0] < MIDDLE else -1
    speed = float(dice.uniform(0.06, 0.12))  # of the picture, a second

    def people(t_s: float) -> tuple[Rect, ...]:
        away_s = max(BEGIN_S - t_s, t_s - BEGIN_S - stays_s, 0.0)
        x = spot[0] + side * (0.03 + speed * away_s)
        return (_standing((x, spot[1] + 0.02)),) if MARGIN < x < 1 - MARGIN else ()

    return people, int(dice.integers(15, 60))


def bag_left(dice: np.random.Generator) -> Plan:
    """Somebody puts a bag down, stays for some seconds, and goes."""
    spot, draw, stays_s = _spot(dice), _thing(dice), float(dice.uniform(2, 8))
    bag, (people, shade) = _bag(dice, spot), _owner(dice, spot, stays_s)
    taken_s = BEGIN_S + stays_s + LEFT_S + 30

    def paint(picture: Image, t_s: float) -> Image:
        if BEGIN_S + 1 <= t_s < taken_s:
            draw(picture, bag)
        for rect in people(t_s):
            _person(picture, rect, shade)
        return picture

    truth = Truth("object_left", "", BEGIN_S + stays_s, taken_s)
    return Plan("bag left", taken_s + 20, (truth,), paint, people)


def owner_returns(dice: np.random.Generator) -> Plan:
    """The owner is back with the bag before it counts as left."""
    spot, draw = _spot(dice), _thing(dice)
    bag = _bag(dice, spot)
    first, shade = _owner(dice, spot, 4)
    away_s = float(dice.uniform(6, 11))

    def people(t_s: float) -> tuple[Rect, ...]:
        return first(t_s) or first(t_s - 4 - away_s)

    def paint(picture: Image, t_s: float) -> Image:
        if BEGIN_S + 1 <= t_s < BEGIN_S + 4 + away_s + 2:
            draw(picture, bag)
        for rect in people(t_s):
            _person(picture, rect, shade)
        return picture

    return Plan("owner returns", BEGIN_S + 70, (), paint, people)


def person_stands(dice: np.random.Generator) -> Plan:
    """Somebody stands still for a minute, and the detector loses them for good in the middle."""
    spot = _spot(dice)
    people, shade = _owner(dice, spot, 60)
    lost_s = BEGIN_S + float(dice.uniform(8, 60))

    def paint(picture: Image, t_s: float) -> Image:
        for rect in people(t_s):
            _person(picture, rect, shade)
        return picture

    def seen(t_s: float) -> tuple[Rect, ...]:
        return people(t_s) if t_s < lost_s else ()

    return Plan("person stands", BEGIN_S + 85, (), paint, seen)


def light_switch(dice: np.random.Generator) -> Plan:
    """A lamp goes on or off: gain and offset of the whole picture, stronger on one side."""
    gain, offset = float(dice.uniform(0.5, 1.5)), float(dice.uniform(-15, 25))
    fall = float(dice.uniform(0, 0.25))

    def paint(picture: Image, t_s: float) -> Image:
        if t_s < BEGIN_S:
            return picture
        field = gain * (1 + fall * np.linspace(-1, 1, WIDTH_PX))[None, :]
        return cast("Image", np.clip(picture * field + offset, 0, 255).astype(np.uint8))

    return Plan("light switch", BEGIN_S + 60, (), paint)


def sun_patch(dice: np.random.Generator) -> Plan:
    """The sun comes out between two houses: a patch of ground is brighter, its edge soft."""
    x, y = _spot(dice)
    size = (int(dice.uniform(10, 35)), int(dice.uniform(6, 20)))
    mask = np.zeros((HEIGHT_PX, WIDTH_PX), np.float32)
    centre = (int(x * WIDTH_PX), int(y * HEIGHT_PX))
    cv2.ellipse(mask, centre, size, float(dice.uniform(0, 180)), 0, 360, 1.0, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), float(dice.uniform(1.5, 4))).astype(np.float32)
    gain = float(dice.uniform(0.25, 0.6))

    def paint(picture: Image, t_s: float) -> Image:
        if t_s < BEGIN_S:
            return picture
        return cast("Image", np.clip(picture * (1 + gain * mask), 0, 255).astype(np.uint8))

    return Plan("sun patch", BEGIN_S + 60, (), paint)


def car_leaves(dice: np.random.Generator) -> Plan:
    """What stood there from the start goes: a hole in the background is no thing."""
    bag, draw = _bag(dice, _spot(dice)), _thing(dice)

    def paint(picture: Image, t_s: float) -> Image:
        if t_s < BEGIN_S:
            draw(picture, bag)
        return picture

    return Plan("thing leaves", BEGIN_S + 60, (), paint)


def _shown(dice: np.random.Generator) -> tuple[Rect, Callable[[Image], None]]:
    """Give a zone, and what draws the thing in it: a framed panel that fills most of the zone."""
    spot = _spot(dice)
    w, h = float(dice.uniform(0.06, 0.14)), float(dice.uniform(0.1, 0.2))
    zone = (spot[0] - w / 2, spot[1] - h, w, h)
    x, y, wide, high = _pixels(zone)
    look = cv2.resize(
        dice.integers(20, 235, (3, 4)).astype(np.uint8),
        (max(4, wide - 4), max(4, high - 4)),
        interpolation=cv2.INTER_NEAREST,
    )

    def draw(picture: Image) -> None:
        picture[y + 2 : y + 2 + look.shape[0], x + 2 : x + 2 + look.shape[1]] = look

    return zone, draw


def _gone(from_s: float, to_s: float, draw: Callable[[Image], None]) -> Paint:
    def paint(picture: Image, t_s: float) -> Image:
        if not from_s <= t_s < to_s:
            draw(picture)
        return picture

    return paint


def thing_removed(dice: np.random.Generator) -> Plan:
    """A thing is taken from its place, and brought back after a while."""
    zone, draw = _shown(dice)
    end_s = BEGIN_S + REMOVED_S + 100  # people in front put it off
    truth = Truth("object_removed", "", BEGIN_S, end_s)
    plan = Plan("thing removed", end_s + 30, (truth,), _gone(BEGIN_S, end_s, draw))
    return replace(plan, zone=zone)


def covered_for_a_while(dice: np.random.Generator) -> Plan:
    """Something stands before it for 30 s and goes; nobody detects it."""
    zone, draw = _shown(dice)
    shade = int(dice.integers(10, 200))
    end_s = BEGIN_S + 30

    def paint(picture: Image, t_s: float) -> Image:
        draw(picture)
        if BEGIN_S <= t_s < end_s:
            x, y, w, h = _pixels(zone)
            cv2.rectangle(picture, (x - 3, y - 6), (x + w + 3, y + h + 3), shade, -1)
        return picture

    return replace(Plan("covered 30 s", end_s + 60, (), paint), zone=zone)


def watched_in_the_dark(dice: np.random.Generator) -> Plan:
    """The light over a thing that stays goes down and up by half."""
    zone, draw = _shown(dice)
    depth = float(dice.uniform(0.2, 0.5))

    def paint(picture: Image, t_s: float) -> Image:
        draw(picture)
        share = max(0.0, math.sin((t_s - BEGIN_S) / 20)) if t_s > BEGIN_S else 0.0
        return cast("Image", (picture * (1 - depth * share)).astype(np.uint8))

    return replace(Plan("light over it", BEGIN_S + 120, (), paint), zone=zone)
