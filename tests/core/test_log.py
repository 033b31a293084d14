"""One line an entry, and no secret in it."""

import io
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.core import log


@contextmanager
def own_logging() -> Iterator[io.StringIO]:
    """Give standard error as a text, with the program's own logging on it."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    with redirect_stderr(io.StringIO()) as stream:
        log.setup()
        try:
            yield stream
        finally:
            root.handlers[:] = before
            root.setLevel(level)


def test_a_line_is_time_level_module_message_and_fields() -> None:
    with own_logging() as stderr:
        log.get("agent.test").info(
            "clip sealed", clip_id="ab12", bytes=7, path="/var/lib/a b", ok=True
        )
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO agent.test clip sealed"
        r' clip_id=ab12 bytes=7 path="/var/lib/a b" ok=True\n',
        stderr.getvalue(),
    )


def test_debug_is_for_developers() -> None:
    with own_logging() as stderr:
        log.get("agent.test").debug("hidden")
        log.setup(verbose=True)
        log.get("agent.test").debug("shown")
    assert "hidden" not in stderr.getvalue()
    assert "shown" in stderr.getvalue()


@pytest.mark.parametrize(
    "name",
    ["password", "Password", "camera_passwd", "token", "api_token", "client_secret", "private"],
)
def test_fields_that_name_a_secret_are_masked(name: str) -> None:
    with own_logging() as stderr:
        log.get("agent.test").warning("broker refused", **{name: "hunter2"})
    assert stderr.getvalue().endswith(f"broker refused {name}=***\n")


def test_where_a_secret_lies_is_no_secret() -> None:
    with own_logging() as stderr:
        log.get("agent.test").warning("not readable", password_path="/etc/outpost/camera.password")
    assert "password_path=/etc/outpost/camera.password" in stderr.getvalue()


@given(
    user=st.from_regex(r"[A-Za-z0-9%.:_-]{1,12}", fullmatch=True),
    secret=st.from_regex(r"[A-Za-z0-9%!$&*+=~_-]{4,20}", fullmatch=True),
)
@settings(max_examples=80)
def test_user_information_is_cut_out_of_urls(user: str, secret: str) -> None:
    text = (
        f"cannot open rtsp://{user}:{secret}@10.0.0.7:554/main (or rtsps://{user}:{secret}@cam/x)"
    )
    assert log.redact(text) == "cannot open rtsp://10.0.0.7:554/main (or rtsps://cam/x)"


def test_a_traceback_is_redacted_too() -> None:
    with own_logging() as stderr:
        try:
            int("rtsp://admin:hunter2@cam/")
        except ValueError:
            log.get("agent.test").error("worker crashed", trace=True, worker="recorder")
    text = stderr.getvalue()
    assert "ValueError: invalid literal for int() with base 10: 'rtsp://cam/'" in text
    assert "hunter2" not in text


def test_a_field_cannot_forge_a_second_line() -> None:
    with own_logging() as stderr:
        log.get("agent.test").warning("refused", reason="no\n2026-01-01 ERROR forged")
    assert stderr.getvalue().count("\n") == 1


def test_plain_texts_stay_without_quotes_and_others_keep_their_letters() -> None:
    with own_logging() as stderr:
        log.get("agent.test").info("x", a="gate-1/2.mp4", b="größer als", c=None, d=-1.5, e="")
    assert 'a=gate-1/2.mp4 b="größer als" c=None d=-1.5 e=""' in stderr.getvalue()
