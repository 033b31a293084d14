"""What a person at the box asks of the running agent, which alone writes the database.

A request is a file of JSON in `<state>/requests/`, named by its id, that appears there complete;
the agent takes it, does it once and leaves an answer beside it, which whoever asked takes away.
Who may write into that folder may ask: its mode is 0770. Sizes and numbers are bounded; what is no
request lies in `bad/` with its reason. A request that a crash has cut short is not done again.
"""

import json
import os
import re
import stat
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.core import log
from agent.core.clock import NS_PER_S, Clock
from agent.core.errors import AgentError, DeviceBusy, MalformedMessage, StorageError
from agent.core.files import TEMP_SUFFIX, atomic
from agent.core.wire import Json
from agent.delivery.patience import Complaints

FOLDER = "requests"
BAD = "bad"
FOLDER_MODE = 0o770
FILE_MODE = 0o664  # the folder says who comes in; agent and asker may be two users
MOST_BYTES = 64 * 1024  # of a request or an answer
MOST_WAITING = 64
MOST_ANSWERS = 64  # that nobody has taken
MOST_BAD = 20
LOOK_S = 0.25
ANSWER_S = 20.0  # how long to wait for the agent
ASK_AGAIN_S = 0.05
MOST_WORDS = 256  # letters of a name
_REQUEST, _TAKEN, _ANSWER, _WHY = ".json", ".taken", ".answer", ".why"
_ID = re.compile(r"[0-9a-f]{32}")
_CUT_SHORT = (
    "the agent stopped while it did this; look with `outpost inspect` whether it is done, then ask"
    " again"
)

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants."""

    word: str
    args: Json
    by: str  # who, in their own words
    uid: int = -1  # the user whose file it was, by the system


Do = Callable[[Request], Json]
"""Does one word and gives what came of it; raises an AgentError, such as MalformedMessage, to
refuse it with that error's words."""


class Requests:
    """Worker of the agent's side."""

    name = "requests"

    def __init__(self, state_dir: Path, words: Mapping[str, Do], clock: Clock) -> None:
        self._folder = state_dir / FOLDER
        self._words = words
        self._clock = clock
        self._complaints = Complaints(_log)

    def run(self, stop: threading.Event, progress: Callable[[], None]) -> None:
        """Do what is asked until `stop`; a disk that refuses is told, and tried again."""
        is_open = False
        while not stop.is_set():
            try:
                if not is_open:
                    self.open()
                is_open = True
                self.look()
            except OSError as error:
                is_open = False
                now_ns = self._clock.mono_ns()
                self._complaints.add("requests not served", now_ns, reason=error)
            progress()
            self._clock.wait(stop, LOOK_S)

    def open(self) -> None:
        """Make the folder, and answer for what a crash has cut short."""
        prepare(self._folder)
        for path in self._files(_TAKEN):
            self._answer(path.stem, {"state": "refused", "detail": _CUT_SHORT})
            path.unlink(missing_ok=True)
        for path in self._files(TEMP_SUFFIX)[:-MOST_WAITING]:
            path.unlink(missing_ok=True)

    def look(self) -> int:
        """Do what waits, the oldest first; gives how many requests that were."""
        waiting = self._files(_REQUEST)
        for path in waiting:
            self._take(path)
        if waiting:
            for path in self._files(_ANSWER)[:-MOST_ANSWERS]:
                path.unlink(missing_ok=True)
        return len(waiting)

    def _take(self, path: Path) -> None:
        taken = path.with_suffix(_TAKEN)
        try:
            path.rename(taken)
        except FileNotFoundError:
            return  # withdrawn
        try:
            request = _read(taken)
        except MalformedMessage as error:
            self._set_aside(taken, path.name, str(error))
            return
        answer = self._done(request)
        _log.info("request", word=request.word, by=request.by, uid=request.uid, **_short(answer))
        self._answer(path.stem, answer)
        taken.unlink(missing_ok=True)

    def _done(self, request: Request) -> Json:
        try:
            return {"state": "done", "result": do(self._words, request)}
        except AgentError as error:
            return {"state": "refused", "detail": str(error)}

    def _answer(self, request_id: str, answer: Json) -> None:
        if not _ID.fullmatch(request_id):
            return
        content = json.dumps(answer).encode()
        if len(content) > MOST_BYTES:
            content = json.dumps({"state": answer["state"], "detail": "too long to tell"}).encode()
        _write(self._folder / f"{request_id}{_ANSWER}", content)

    def _set_aside(self, path: Path, name: str, reason: str) -> None:
        _log.warning("request set aside", name=name, reason=reason)
        self._answer(path.stem, {"state": "refused", "detail": reason})
        bad = self._folder / BAD
        bad.mkdir(exist_ok=True)
        number = self._clock.new_id()
        path.rename(bad / f"{number}{_REQUEST}")
        (bad / f"{number}{_WHY}").write_text(f"{name}: {reason}\n")
        for old in sorted(bad.iterdir())[: -2 * MOST_BAD]:
            with suppress(OSError):  # somebody's folder
                old.unlink()

    def _files(self, suffix: str) -> list[Path]:
        """Give what is there, by name: that is the order in which it was asked."""
        return sorted(path for path in self._folder.iterdir() if path.suffix == suffix)


def do(words: Mapping[str, Do], request: Request) -> Json:
    """Do a request here; AgentError if its word is unknown or refuses it."""
    word = words.get(request.word)
    if word is None:
        raise MalformedMessage(
            f"request {request.word[:64]!r}: unknown; allowed: {', '.join(sorted(words))}"
        )
    return word(request)


def ask(state_dir: Path, request: Request, clock: Clock, timeout_s: float = ANSWER_S) -> Json:
    """Ask the agent that runs on a state directory; gives what came of it.

    Raises:
        MalformedMessage: the agent refuses, in its words.
        DeviceBusy: it does not answer in time, or too many others are waiting.
        StorageError: the folder cannot be written.
    """
    folder = state_dir / FOLDER
    document = {"word": request.word, "args": request.args, "by": request.by}
    content = json.dumps(document).encode()
    if len(content) > MOST_BYTES:
        raise MalformedMessage(f"request: {len(content)} bytes; allowed: {MOST_BYTES}")
    try:
        prepare(folder)
        waiting = sum(path.suffix == _REQUEST for path in folder.iterdir())
        if waiting >= MOST_WAITING:
            raise DeviceBusy(f"{folder}: {waiting} requests wait; allowed: {MOST_WAITING}")
        path = folder / f"{clock.new_id()}{_REQUEST}"
        _write(path, content)
        answer = _awaited(path, clock, timeout_s)
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror}") from error
    if answer["state"] != "done":
        raise MalformedMessage(str(answer.get("detail", "")))
    result: Json = answer.get("result", {})
    return result


def prepare(folder: Path) -> None:
    """Make the folder for those who may ask: the owner and the group."""
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(FOLDER_MODE)


def _awaited(path: Path, clock: Clock, timeout_s: float) -> Json:
    answer_path = path.with_suffix(_ANSWER)
    never, deadline_ns = threading.Event(), clock.mono_ns() + int(timeout_s * NS_PER_S)
    while not answer_path.exists():
        if clock.mono_ns() < deadline_ns:
            clock.wait(never, ASK_AGAIN_S)
            continue
        try:
            path.unlink()
        except FileNotFoundError:
            raise DeviceBusy(
                f"{path.name}: no answer in {timeout_s:g} s; the agent has taken it, look with"
                " `outpost inspect` what came of it"
            ) from None
        raise DeviceBusy(f"{path.name}: no answer in {timeout_s:g} s; withdrawn, nothing was done")
    try:
        answer: Json = json.loads(answer_path.read_bytes())
    except ValueError as error:
        raise StorageError(f"{answer_path}: no answer: {error}") from error
    answer_path.unlink(missing_ok=True)
    return answer


def _write(path: Path, content: bytes) -> None:
    with atomic(path) as stream:
        os.fchmod(stream.fileno(), FILE_MODE)  # whatever the asker's umask says
        stream.write(content)


def _read(path: Path) -> Request:
    """Read a request; MalformedMessage if it is none."""
    if not _ID.fullmatch(path.stem):
        raise MalformedMessage(f"name {path.stem[:64]!r}; allowed: 32 hex digits")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise MalformedMessage(f"cannot be opened: {error.strerror}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise MalformedMessage("no plain file")
        if found.st_size > MOST_BYTES:
            raise MalformedMessage(f"{found.st_size} bytes; allowed: {MOST_BYTES}")
        content = os.read(descriptor, MOST_BYTES)
    finally:
        os.close(descriptor)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage(f"not JSON: {error}") from error
    return _checked(document, found.st_uid)


def _checked(document: object, uid: int) -> Request:
    shape = {"word": str, "args": dict, "by": str}
    if not isinstance(document, dict) or set(document) != set(shape):
        raise MalformedMessage(f"no request; allowed: an object of {', '.join(shape)}")
    for name, kind in shape.items():
        if not isinstance(document[name], kind):
            raise MalformedMessage(
                f"{name}: {str(document[name])[:64]!r}; allowed: {kind.__name__}"
            )
    by: str = document["by"]
    if not 0 < len(by.strip()) <= MOST_WORDS or not by.isprintable():
        raise MalformedMessage(f"by: {by[:64]!r}; allowed: a name of 1 to {MOST_WORDS} letters")
    return Request(document["word"], document["args"], by, uid)


def _short(answer: Json) -> dict[str, object]:
    return {name: answer[name] for name in ("state", "detail") if name in answer}
