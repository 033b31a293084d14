"""What a technician writes down: words, files, rectangles; every slip is named."""

import pytest

from agent.core.errors import ConfigError
from agent.vision.survey import Notes, length_check

SIZE = (1000, 500)


def survey(*points, rectangle=None, straights=()):
    notes = Notes.empty()
    if rectangle:
        notes.take_rectangle(*rectangle)
    notes.take_points(points)
    notes.take_straights(straights)
    return notes.survey(*SIZE)


def test_pixels_and_fractions_mean_the_same():
    px = survey("500,250=0,3.5", "100,50=-2,4")
    fractions = survey("0.5,0.5=0,3.5", "0.1,0.1=-2,4")
    assert px == fractions
    assert [(mark.name, mark.x, mark.y_m) for mark in px.marks] == [("1", 0.5, 3.5), ("2", 0.1, 4)]


def test_a_rectangle_is_four_points_and_may_have_more_beside_it():
    found = survey("900,400=9,9", rectangle=("100,100 200,100 220,200 80,200", "3.5x12"))
    assert [(mark.x_m, mark.y_m) for mark in found.marks] == [
        (0, 0), (3.5, 0), (3.5, 12), (0, 12), (9, 9),
    ]  # fmt: skip


def test_a_file_gives_points_and_straights(tmp_path):
    path = tmp_path / "yard.toml"
    path.write_text(
        '[[points]]\npicture = [100, 50]\nground_m = [0, 1]\nname = "kerb"\n'
        "[[points]]\npicture = [500, 250]\nground_m = [2.5, 1]\n"
        "[[straights]]\npicture = [[0, 0], [500, 10], [1000, 0]]\n"
    )
    found = survey(str(path))
    assert [(mark.name, mark.x, mark.x_m) for mark in found.marks] == [
        ("kerb", 0.1, 0),
        ("2", 0.5, 2.5),
    ]
    assert found.straights == (((0.0, 0.0), (0.5, 0.02), (1.0, 0.0)),)


def test_a_straight_in_words():
    assert survey(straights=("0.1,0.1 0.5,0.12 0.9,0.1",)).straights == (
        ((0.1, 0.1), (0.5, 0.12), (0.9, 0.1)),
    )


def test_a_known_length():
    assert length_check("10,20 30,40.5 = 3.5") == ((10, 20), (30, 40.5), 3.5)


@pytest.mark.parametrize(
    "text",
    ["", "1,2 3,4", "1,2 = 3", "1,2 3,4 = x", "1,2 3,4 = 0", "a,b 3,4 = 1", "1,2 3,4 5,6 = 1"],
)
def test_a_length_that_is_none_is_named(text):
    with pytest.raises(ConfigError, match="allowed"):
        length_check(text)


@pytest.mark.parametrize(
    ("points", "word"),
    [
        (["1,2=3"], "1,2=3"),
        (["1=2,3"], "1=2,3"),
        (["x,y=1,2"], "x,y"),
        (["1200,20=0,0"], "outside the picture"),
        (["-3,20=0,0", "4,4=1,1"], "outside the picture"),
        (["nowhere.toml"], "nowhere.toml"),
        (["1,2=3,4"] * 41, "41 points"),
    ],
)
def test_points_that_are_none_are_named(points, word):
    with pytest.raises(ConfigError, match="allowed") as caught:
        survey(*points)
    assert word in str(caught.value)


@pytest.mark.parametrize(
    ("corners", "sides"),
    [("1,1 2,2 3,3", "1x2"), ("1,1 9,1 9,9 1,9", "12"), ("1,1 9,1 9,9 1,9", "0x2"),
     ("1,1 9,1 9,9 1,9", "axb"), ("1,1 9,1 9,9 1,9", "1x2x3"), ("1,1 9,1 9,9 1,9", "nanx2")],
)  # fmt: skip
def test_a_rectangle_that_is_none_is_named(corners, sides):
    with pytest.raises(ConfigError, match="allowed"):
        survey(rectangle=(corners, sides))


def test_a_straight_of_two_points_is_refused():
    with pytest.raises(ConfigError, match="straight of 2 points"):
        survey(straights=("1,1 5,5",))


@pytest.mark.parametrize(
    "text",
    [
        "points = 3\nother = 1",
        "[[points]]\npicture = [1, 2]",
        "[[points]]\npicture = [1, 2]\nground_m = [1, true]",
        "[[points]]\npicture = [1, 2]\nground_m = [1, 2, 3]",
        '[[points]]\npicture = "1, 2"\nground_m = [1, 2]',
        "[[points]]\npicture = [1, 2]\nground_m = [1, 2]\ncolour = 3",
        "points = [1, 2]",
        "[[straights]]\npicture = [1, 2, 3]",
        "not toml",
    ],
)
def test_a_file_with_a_slip_is_named(tmp_path, text):
    path = tmp_path / "slip.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"slip\.toml"):
        survey(str(path))
