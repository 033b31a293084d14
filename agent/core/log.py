"""Logging: one line per change of state, a constant message and key=value fields.

Standard error carries the log, standard output the answer of a command. Fields whose
name speaks of a secret are masked, and user information is cut out of every URL.
"""

import json
import logging
import re
import sys
from typing import Any

_SECRET = re.compile(r"password|passwd|secret|token|private", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^\s\"']*@")  # up to the last @: a password may hold one
_PLAIN = re.compile(r"[\w./:+\-%@,]+")


class Log:
    """A logger that takes its fields as keywords: `log.info("source lost", camera=…)`."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, message: str, **fields: Any) -> None:
        """For developers."""
        self._write(logging.DEBUG, message, fields)

    def info(self, message: str, **fields: Any) -> None:
        """Say that a state has changed, as expected."""
        self._write(logging.INFO, message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        """Say that something is degraded and being dealt with."""
        self._write(logging.WARNING, message, fields)

    def error(self, message: str, *, trace: bool = False, **fields: Any) -> None:
        """Say that something needs a person; `trace` adds the current traceback."""
        self._write(logging.ERROR, message, fields, trace=trace)

    def _write(
        self, level: int, message: str, fields: dict[str, Any], *, trace: bool = False
    ) -> None:
        if self._logger.isEnabledFor(level):
            parts = [message, *(f"{key}={_value(key, value)}" for key, value in fields.items())]
            self._logger.log(level, "%s", redact(" ".join(parts)), exc_info=trace)


def get(name: str) -> Log:
    """Give the logger of a module."""
    return Log(logging.getLogger(name))


def redact(text: str) -> str:
    """Cut user names and passwords out of the URLs in `text`."""
    return _USERINFO.sub("", text)


def setup(*, verbose: bool = False, quiet: bool = False) -> None:
    """Send the log to standard error, one line an entry, with UTC time.

    Args:
        verbose: also what is for developers.
        quiet: only what is degraded, or needs a person.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)


def _value(key: str, value: Any) -> str:
    if _SECRET.search(key) and not key.endswith("_path"):
        return "***"
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


class _OneLine(logging.Formatter):
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    @staticmethod
    def converter(seconds: float | None) -> Any:
        import time  # noqa: PLC0415 - only the conversion, no clock is read here

        return time.gmtime(seconds)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - name of the base class
        return redact(super().formatException(ei))
