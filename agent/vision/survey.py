"""What a technician measured: points of the ground and where they are seen, in a file or in words.

In words: `412,380=0,3.5` is a point of the picture (pixels, or fractions where no number is above
1) and its place on the ground in metres. A file is TOML:

    [[points]]
    picture = [412, 380]
    ground_m = [0.0, 3.5]
    name = "kerb"              # optional

    [[straights]]              # optional: straight in reality, for the lens
    picture = [[10, 200], [300, 190], [630, 205]]
"""

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.core.errors import ConfigError
from agent.vision.calibration import Mark

MAX_MARKS: Final = 40
MAX_STRAIGHTS: Final = 16
SIDES: Final = "allowed: AxB in metres, the first side from the first point to the second"

_PAIR: Final = 2
_LEAST_OF_A_LINE: Final = 3
_FRACTIONS_TO: Final = 1.0

Pair = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Survey:
    """Points and straight lines, in fractions of a picture of a known size."""

    width_px: int
    height_px: int
    marks: tuple[Mark, ...]
    straights: tuple[tuple[Pair, ...], ...] = ()


@dataclass(slots=True)
class Notes:
    """Points and lines as they were given, in pixels or fractions; filled step by step."""

    marks: list[tuple[str, Pair, Pair]]
    straights: list[tuple[Pair, ...]]

    @classmethod
    def empty(cls) -> "Notes":
        """Begin."""
        return cls([], [])

    def take_points(self, words: Sequence[str]) -> None:
        """Take points in words, or files of them.

        Raises:
            ConfigError: naming the word or the key that cannot be read.
        """
        for word in words:
            if "=" in word:
                picture, _, ground = word.partition("=")
                spots = (_pair(picture, word), _pair(ground, word))
                self.marks.append((f"{len(self.marks) + 1}", *spots))
            else:
                self._take_file(Path(word))

    def take_rectangle(self, corners: str, sides: str) -> None:
        """Take a rectangle of known sides: corners in order, `AxB` metres."""
        spots = [_pair(word, corners) for word in corners.split()]
        if len(spots) != 4:  # noqa: PLR2004 - a rectangle
            raise ConfigError(f"--rectangle {corners!r}: {len(spots)} points; allowed: 4, in order")
        try:
            a_m, b_m = (float(side) for side in sides.lower().split("x"))
        except ValueError as error:
            raise ConfigError(f"--sides {sides!r}; {SIDES}") from error
        if not (0 < a_m < float("inf") and 0 < b_m < float("inf")):
            raise ConfigError(f"--sides {sides!r}; {SIDES}")
        places = ((0.0, 0.0), (a_m, 0.0), (a_m, b_m), (0.0, b_m))
        for spot, place in zip(spots, places, strict=True):
            self.marks.append((f"{len(self.marks) + 1}", spot, place))

    def take_straights(self, words: Sequence[str]) -> None:
        """Take lines that are straight in reality: `x,y x,y x,y` each."""
        for word in words:
            self.straights.append(tuple(_pair(spot, word) for spot in word.split()))

    def survey(self, width_px: int, height_px: int) -> Survey:
        """Give all of it in fractions of the picture.

        Raises:
            ConfigError: too many or outside of the picture, or a line with two points.
        """
        if len(self.marks) > MAX_MARKS or len(self.straights) > MAX_STRAIGHTS:
            raise ConfigError(
                f"{len(self.marks)} points, {len(self.straights)} straights;"
                f" allowed: up to {MAX_MARKS} and {MAX_STRAIGHTS}"
            )
        for line in self.straights:
            if len(line) < _LEAST_OF_A_LINE:
                raise ConfigError(f"straight of {len(line)} points; allowed: 3 or more")
        size = self._unit(width_px, height_px)
        return Survey(
            width_px,
            height_px,
            tuple(
                Mark(name, *_fraction(spot, size, f"point {name}"), *place)
                for name, spot, place in self.marks
            ),
            tuple(
                tuple(_fraction(spot, size, f"straight {number}") for spot in line)
                for number, line in enumerate(self.straights, start=1)
            ),
        )

    def scale(self, width_px: int, height_px: int, spot: Pair) -> Pair:
        """Give a further point of the picture in fractions, read in the unit of the others."""
        return _fraction(spot, self._unit(width_px, height_px), "point")

    def _unit(self, width_px: int, height_px: int) -> Pair:
        """Give what makes 1.0 of a coordinate: the picture's size, or 1 where all are fractions."""
        spots = [spot for _, spot, _ in self.marks] + [s for line in self.straights for s in line]
        is_px = any(part > _FRACTIONS_TO for spot in spots for part in spot)
        return (float(width_px), float(height_px)) if is_px else (1.0, 1.0)

    def _take_file(self, path: Path) -> None:
        table = _table(path)
        for key in table.keys() - {"points", "straights"}:
            raise ConfigError(f"{path}: {key}: unknown key; allowed: points, straights")
        for where, item in _items(path, table, "points", {"picture", "ground_m", "name"}):
            spots = [_numbers(item.get(key), f"{where}.{key}") for key in ("picture", "ground_m")]
            name = str(item.get("name", len(self.marks) + 1))[:MAX_MARKS]
            self.marks.append((name, spots[0], spots[1]))
        for where, item in _items(path, table, "straights", {"picture"}):
            spots = [
                _numbers(spot, f"{where}.picture[{number}]")
                for number, spot in enumerate(_list(item.get("picture")))
            ]
            self.straights.append(tuple(spots))


def length_check(text: str) -> tuple[Pair, Pair, float]:
    """Read a known length: `x1,y1 x2,y2 = 3.5`; ConfigError where it is none."""
    spots, _, length = text.partition("=")
    try:
        first, last = (_pair(word, f"--check {text}") for word in spots.split())
        length_m = float(length)
    except ValueError as error:
        raise ConfigError(f'--check {text!r}; allowed: "x1,y1 x2,y2 = METRES"') from error
    if not 0 < length_m < float("inf"):
        raise ConfigError(f"--check {text!r}: {length_m:g} m; allowed: more than 0")
    return first, last, length_m


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; allowed: x,y=X,Y or a TOML file") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def _items(
    path: Path, table: dict[str, Any], name: str, keys: set[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, item in enumerate(_list(table.get(name, []))):
        where = f"{path}: {name}[{index}]"
        if not isinstance(item, dict) or item.keys() - keys:
            raise ConfigError(f"{where}: allowed: a table with {', '.join(sorted(keys))}")
        yield where, item


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _numbers(value: Any, where: str) -> Pair:
    is_pair = isinstance(value, list) and len(value) == _PAIR
    if not is_pair or not all(type(part) in (int, float) for part in value):
        raise ConfigError(f"{where}: {value!r}; allowed: two numbers [x, y]")
    return float(value[0]), float(value[1])


def _pair(word: str, where: str) -> Pair:
    try:
        x, y = (float(part) for part in word.split(","))
    except ValueError as error:
        raise ConfigError(f"{where!r}: {word!r} is no point; allowed: x,y") from error
    return x, y


def _fraction(spot: Pair, size: Pair, what: str) -> Pair:
    x, y = spot[0] / size[0], spot[1] / size[1]
    if not (0 <= x <= 1 and 0 <= y <= 1):
        unit = "0 to 1" if size == (1.0, 1.0) else f"pixels of {size[0]:g}x{size[1]:g}"
        raise ConfigError(
            f"{what}: {spot[0]:g},{spot[1]:g} is outside the picture; allowed: {unit}"
        )
    return x, y
