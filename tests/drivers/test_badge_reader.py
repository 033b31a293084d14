"""Readers of badges: lines on a pseudo-terminal, keys as the kernel tells them."""

import os
import threading
import time

import pytest

from agent.core.clock import RealClock
from agent.core.errors import SourceLost
from drivers import badge_reader as driver

ENTER = 28
CODES = {text: code for code, text in driver.KEYS.items() if code < 71}


def keys(text):
    events = b""
    for code in [CODES[letter] for letter in text] + [ENTER]:
        for value in (1, 0):  # down, up
            events += driver.EVENT.pack(0, 0, 4, 4, code) + driver.EVENT.pack(0, 0, 1, code, value)
            events += driver.EVENT.pack(0, 0, 0, 0, 0)
    return events


class Listening:
    def __init__(self, path, form):
        self.heard, self.error = [], None
        self.stop = threading.Event()
        reader = driver.build(driver.Config(path, form), RealClock())
        reader.listen(self.heard.append)
        self._reader = reader
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            self._reader.run(self.stop, lambda: None)
        except SourceLost as error:
            self.error = error

    def until(self, count):
        limit_s = time.monotonic() + 10
        while len(self.heard) < count and self.error is None and time.monotonic() < limit_s:
            time.sleep(0.01)
        return self.heard

    def end(self):
        self.stop.set()
        self._thread.join(10)


def test_lines_of_a_serial_reader(tmp_path):
    master, slave = os.openpty()
    found = Listening(os.ttyname(slave), "serial")
    time.sleep(0.3)
    os.write(master, b"\x020042")
    os.write(master, b"1900\x03\r\n\r\n\x02B-7\x03\r")
    assert found.until(2) == ["00421900", "B-7"]
    os.write(master, b"x" * 5000 + b"\n")
    assert len(found.until(3)[2]) <= driver.MOST_LETTERS
    found.end()
    os.close(master)
    os.close(slave)


def test_keys_of_a_reader_that_types(tmp_path):
    pipe = tmp_path / "event0"
    os.mkfifo(pipe)
    both = os.open(pipe, os.O_RDWR)
    found = Listening(pipe, "hid")
    content = keys("0042") + keys("ab7")
    for start in range(0, len(content), 37):
        os.write(both, content[start : start + 37])
    assert found.until(2) == ["0042", "ab7"]
    found.end()
    os.close(both)


def test_a_reader_that_is_not_there_is_told(tmp_path):
    found = Listening(tmp_path / "no-such", "serial")
    found.end()
    assert "no-such" in str(found.error)


@pytest.mark.parametrize("form", ["serial", "hid"])
def test_rubbish_is_no_badge(tmp_path, form):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    both = os.open(path, os.O_RDWR)
    found = Listening(path, form)
    os.write(both, bytes(range(256)) * 8)
    time.sleep(0.3)
    assert all(badge and len(badge) <= driver.MOST_LETTERS for badge in found.heard)
    found.end()
    assert found.error is None
    os.close(both)
