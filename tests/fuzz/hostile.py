"""Messages that nobody should send: rubbish, and good ones with one thing wrong.

Few and always the same examples by default; `OUTPOST_FUZZ=50` makes fifty times as many, new ones
at every run.
"""

import json
import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from agent.core import wire
from agent.core.errors import MalformedMessage

TIMES = max(1, int(os.environ.get("OUTPOST_FUZZ", "1")))


def examples(count, **more):
    """Settings of a fuzz test: the same few examples each time, unless more are asked for."""
    return settings(
        max_examples=count * TIMES,
        derandomize=TIMES == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )


NUMBERS = (
    *(-1, 0, 1, (1 << 53) - 1, 1 << 53, (1 << 63) - 1, 1 << 63, 1 << 64, -(1 << 63), 1 << 4000),
    *(0.5, -0.0, 1e15, 1e300, -1e308, 5e-324, float("nan"), float("inf"), float("-inf")),
)
NAMES = (
    *(
        "",
        ".",
        "..",
        "../../../../etc/passwd",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "C:\\x",
        "~",
        "%2e%2e",
    ),
    *("cam-2", "cam-1\n", "cam-1\0", " cam-1", "CAM-1", "manifest.json", "receipt-clip-1.mp4.json"),
    *("x.tmp", "x.part", "-rf", "$(reboot)", "'; DROP TABLE event; --", "#", "+", "$SYS/x"),
    *("\ud800", "\u202e", "é" * 40, "x" * 64, "x" * 70_000, "0" * 32, "f" * 64, "A" * 86 + "=="),
)
RANGES = (
    *([], [[]], [[0]], [[0, 1, 2]], [[-1, 5]], [[5, 3]], [[0, 0]], [[0, (1 << 53) - 1]]),
    *([[0, 10], [5, 15], [0, 10]], [["0", "9"]], [[0.5, 1.5]], [[0, 1]] * 1024, [[0, 1]] * 1025),
)
OTHERS = (None, True, False, {}, {"a": {}}, [None] * 2000, {str(n): n for n in range(500)})


def _text(value):
    return json.dumps(value).encode()


def nested(depth, value=0):
    for _ in range(depth):
        value = [value] if depth % 2 else {"a": value}
    return value


VALUES = (*NUMBERS, *NAMES, *RANGES, *OTHERS, nested(31), nested(32), nested(33), nested(200))
TEXTS = (
    *(b"", b"{}", b"[]", b"null", b"true", b"0", b'""', b"{", b"\x00", b"\xff", b"\xef\xbb\xbf{}"),
    *(
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 5000,
        b"-0",
        b"1.",
        b"01",
        b"'a'",
        b"{,}",
        b"// x\n{}",
    ),
    *(b"[" * 200_000, b'{"a":' * 40_000, b"[" * 500 + b"]" * 500, b" " * 262_145, b"[0," * 60_000),
    *(_text({str(n): 0 for n in range(20_000)})[:-1] + b',"19999":0}', _text(nested(200))),
    *('{"sv":1}'.encode("utf-16"), b'"\\ud800"', b'{"sv":1,"sv":1}', b"\x28\xb5\x2f\xfd\x00\x58"),
)
JSON = st.recursive(
    st.sampled_from(VALUES) | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
PLACES = st.integers(0, 1 << 16)
RUBBISH = st.sampled_from(TEXTS) | st.binary(max_size=80) | JSON.map(_text)


@st.composite
def spoiled(draw, document):
    """Give the bytes of a good message with one thing wrong with it."""
    copy = json.loads(json.dumps(document))
    target, key = copy, draw(st.sampled_from(sorted(copy)))
    while (inner := _keys(target[key])) and draw(st.booleans()):
        target, key = target[key], draw(st.sampled_from(inner))
    harm = draw(
        st.sampled_from(("value", "value", "value", "gone", "more", "twice", "cut", "bits"))
    )
    if harm == "value":
        target[key] = draw(st.sampled_from(VALUES) | JSON)
    elif harm == "gone":
        del target[key]
    elif harm == "more":
        copy[draw(st.sampled_from(("surprise", "__proto__", "sv ", "")))] = draw(JSON)
    text = _text(copy)
    if harm == "twice":  # the last one, the good one, is what most readers take
        name = draw(st.sampled_from(sorted(copy)))
        text = b"{%s:%s,%s" % (_text(name), _text(draw(st.sampled_from(VALUES))), text[1:])
    elif harm == "cut":
        text = text[: draw(PLACES) % len(text)]
    elif harm == "bits":
        at = draw(PLACES) % len(text)
        text = text[:at] + bytes([text[at] ^ (1 << draw(st.integers(0, 7)))]) + text[at + 1 :]
    return text


def is_harmless(schema, content, good):
    """Whether what was spoiled still says the same, as 1.0 for 1 does."""
    try:
        return bool(wire.decode(schema, content) == good)
    except MalformedMessage:
        return False


def _keys(value):
    if isinstance(value, dict):
        return sorted(value)
    return list(range(len(value))) if isinstance(value, list) else []
