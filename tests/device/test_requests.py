"""Requests of a person at the box: done once, answered, refused in words, never in the way."""

import json
import os
import shutil
import threading

import pytest

from agent.core.clock import RealClock, SimClock
from agent.core.errors import DeviceBusy, MalformedMessage, StorageError
from agent.device import requests
from agent.device.requests import Request, Requests, ask
from tests.delivery.centre import Running, until


class Clerk:
    """What the words of a test do."""

    def __init__(self):
        self.done = []

    def add(self, request):
        if "number" not in request.args:
            raise MalformedMessage("number is missing; allowed: a whole number")
        self.done.append(request)
        return {"sum": sum(item.args["number"] for item in self.done)}


@pytest.fixture
def clerk():
    return Clerk()


@pytest.fixture
def agent(tmp_path, clerk):
    return Requests(tmp_path, {"add": clerk.add}, RealClock())


def put(folder, content, name="0" * 31 + "1", suffix=".json"):
    requests.prepare(folder)
    (folder / f"{name}{suffix}").write_bytes(content)


def good(**changes):
    return json.dumps({"word": "add", "args": {"number": 1}, "by": "eva"} | changes).encode()


def answers(folder):
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.answer")}


def test_the_agent_does_what_is_asked_and_says_what_came_of_it(tmp_path, agent, clerk):
    with Running(agent):
        assert ask(tmp_path, Request("add", {"number": 3}, "eva"), RealClock()) == {"sum": 3}
        assert ask(tmp_path, Request("add", {"number": 4}, "eva"), RealClock()) == {"sum": 7}
    assert [(found.by, found.uid) for found in clerk.done] == [("eva", os.getuid())] * 2
    assert not [path for path in (tmp_path / "requests").iterdir() if path.name != "bad"]


def test_what_is_refused_says_why(tmp_path, agent):
    with Running(agent):
        with pytest.raises(MalformedMessage, match="number is missing"):
            ask(tmp_path, Request("add", {}, "eva"), RealClock())
        with pytest.raises(MalformedMessage, match="'sing': unknown; allowed: add"):
            ask(tmp_path, Request("sing", {}, "eva"), RealClock())


def test_many_at_once_are_each_done_once(tmp_path, agent, clerk):
    def one(number):
        ask(tmp_path, Request("add", {"number": number}, "eva"), RealClock())

    askers = [threading.Thread(target=one, args=(number,)) for number in range(10)]
    with Running(agent):
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
    assert sorted(found.args["number"] for found in clerk.done) == list(range(10))


def test_an_agent_that_does_not_answer_leaves_nothing_behind(tmp_path, agent, clerk):
    with pytest.raises(DeviceBusy, match="withdrawn, nothing was done"):
        ask(tmp_path, Request("add", {"number": 1}, "eva"), SimClock(), 3)
    agent.open()
    assert agent.look() == 0
    assert not clerk.done


def test_what_was_taken_and_not_answered_is_told(tmp_path, clerk):
    class Slow(SimClock):
        def wait(self, event, timeout_s):
            for path in (tmp_path / "requests").glob("*.json"):
                path.rename(path.with_suffix(".taken"))
            return super().wait(event, timeout_s)

    with pytest.raises(DeviceBusy, match="the agent has taken it"):
        ask(tmp_path, Request("add", {"number": 1}, "eva"), Slow(), 3)


def test_what_a_crash_has_cut_short_is_answered_and_not_done_again(tmp_path, agent, clerk):
    folder = tmp_path / "requests"
    put(folder, good(), suffix=".taken")
    agent.open()
    assert agent.look() == 0
    (answer,) = answers(folder).values()
    assert answer["state"] == "refused"
    assert "the agent stopped while it did this" in answer["detail"]
    assert not clerk.done
    assert not list(folder.glob("*.taken"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "no request; allowed: an object of word, args, by"),
        (good(more=1), "no request"),
        (good(word=1), "word: '1'; allowed: str"),
        (good(args=[]), "args"),
        (good(by=" "), "a name of 1 to 256 letters"),
        (good(by="a\nb"), "a name of 1 to 256 letters"),
        (good(by="e" * 257), "a name of 1 to 256 letters"),
        (b" " * 70_000, "70000 bytes; allowed: 65536"),
    ],
)
def test_what_is_no_request_is_set_aside_with_its_reason(tmp_path, agent, clerk, content, reason):
    folder = tmp_path / "requests"
    put(folder, content)
    agent.open()
    agent.look()
    assert not clerk.done
    (why,) = (folder / "bad").glob("*.why")
    assert reason in why.read_text()
    assert why.with_suffix(".json").read_bytes() == content
    (answer,) = answers(folder).values()
    assert reason in answer["detail"]


def test_links_folders_pipes_and_odd_names_are_no_requests(tmp_path, agent, clerk):
    folder = tmp_path / "requests"
    put(folder, good(), name="readme")
    (tmp_path / "real").write_bytes(good())
    (folder / f"{'1' * 32}.json").symlink_to(tmp_path / "real")
    (folder / f"{'2' * 32}.json").mkdir()
    os.mkfifo(folder / f"{'3' * 32}.json")
    agent.open()
    assert agent.look() == 4
    assert agent.look() == 0
    assert not clerk.done
    assert len(list((folder / "bad").glob("*.why"))) == 4


def test_numbers_are_bounded(tmp_path, agent, clerk):
    folder = tmp_path / "requests"
    for number in range(70):
        put(folder, good(), name=f"{number:032x}")
        put(folder, b"", name=f"{number + 100:032x}")
    with pytest.raises(DeviceBusy, match="140 requests wait; allowed: 64"):
        ask(tmp_path, Request("add", {"number": 1}, "eva"), SimClock())
    agent.open()
    agent.look()
    assert len(clerk.done) == 70
    assert len(answers(folder)) <= requests.MOST_ANSWERS
    assert len(list((folder / "bad").iterdir())) <= 2 * requests.MOST_BAD
    with pytest.raises(MalformedMessage, match="allowed: 65536"):
        ask(tmp_path, Request("add", {"text": "x" * 70_000}, "eva"), SimClock())


def test_an_answer_too_long_to_tell_says_so(tmp_path):
    agent = Requests(tmp_path, {"long": lambda _: {"text": "x" * 70_000}}, RealClock())
    put(tmp_path / "requests", good(word="long"))
    agent.look()
    assert list(answers(tmp_path / "requests").values()) == [
        {"state": "done", "detail": "too long to tell"}
    ]


def test_the_folder_is_for_owner_and_group_whatever_the_umask(tmp_path, agent):
    before = os.umask(0o077)
    try:
        with Running(agent):
            ask(tmp_path, Request("add", {"number": 1}, "eva"), RealClock())
    finally:
        os.umask(before)
    assert (tmp_path / "requests").stat().st_mode & 0o7777 == 0o770


def test_a_disk_that_refuses_is_told_to_who_asks(tmp_path):
    (tmp_path / "requests").write_text("in the way")
    with pytest.raises(StorageError, match="requests"):
        ask(tmp_path, Request("add", {"number": 1}, "eva"), SimClock())


def test_a_disk_that_refuses_does_not_end_the_agent(tmp_path, agent, clerk, caplog):
    obstacle = tmp_path / "requests"
    obstacle.write_text("in the way")
    with Running(agent) as running:
        assert until(lambda: running.turns > 1)
        obstacle.unlink()
        assert until(obstacle.is_dir)
        ask(tmp_path, Request("add", {"number": 1}, "eva"), RealClock())
        shutil.rmtree(obstacle)
        assert until(obstacle.is_dir)
    assert len(clerk.done) == 1
    assert "requests not served" in caplog.text
