"""HTTP against servers that answer too much, too slowly, too little, or not at all."""

import socket
import threading
import time

import pytest

from agent.core import web
from agent.core.errors import UplinkDown
from agent.core.web import Web

OK = b"HTTP/1.1 200 OK\r\n"


class Server:
    """Accepts, reads the head of a request, and does what it is told."""

    def __init__(self, answer):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/a?X-Amz-Signature=secret"
        self.heads = []
        self._answer = answer
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _run(self):
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            with link:
                head = b""
                while b"\r\n\r\n" not in head and (block := link.recv(65_536)):
                    head += block
                self.heads.append(head)
                try:
                    self._answer(link)
                except OSError:
                    continue


def says(*blocks, pause_s=0.0):
    def answer(link):
        for block in blocks:
            link.sendall(block)
            time.sleep(pause_s)

    return answer


def test_an_answer_comes_with_its_headers_in_lower_case():
    with Server(says(OK + b'ETag: "x"\r\nContent-Length: 2\r\n\r\nhi')) as server:
        answer = Web().send("PUT", server.url, {"content-length": "3"}, (b"a", b"bc"))
    assert (answer.status, answer.body, answer.headers["etag"]) == (200, b"hi", '"x"')
    assert b"PUT /a?X-Amz-Signature=secret HTTP/1.1" in server.heads[0]
    assert b"host: 127.0.0.1:%d" % server.port in server.heads[0]


def test_an_answer_without_an_end_is_cut_off():
    endless = [b"x" * 65_536] * 40
    with (
        Server(says(OK + b"\r\n", *endless)) as server,
        pytest.raises(UplinkDown, match="allowed: less"),
    ):
        Web().send("GET", server.url, {})


def test_an_answer_that_drips_is_cut_off(monkeypatch):
    monkeypatch.setattr(web, "REPLY_S", 0.5)
    drips = [b"x"] * 200
    begun_s = time.monotonic()
    head = OK + b"Content-Length: 200\r\n\r\n"
    with Server(says(head, *drips, pause_s=0.05)) as server, pytest.raises(UplinkDown):
        Web().send("GET", server.url, {})
    assert time.monotonic() - begun_s < 8


def test_silence_ends(monkeypatch):
    with (
        Server(says(OK, pause_s=1.0)) as server,
        pytest.raises(UplinkDown, match="timed out"),
    ):
        Web(silence_s=0.3).send("GET", server.url, {})


def test_the_message_never_repeats_the_query():
    with Server(lambda link: None) as server, pytest.raises(UplinkDown) as caught:
        Web().send("GET", server.url, {})
    assert "secret" not in str(caught.value)
    assert f"127.0.0.1:{server.port}/a" in str(caught.value)


def test_a_redirect_is_an_answer_and_nobody_goes_there():
    with (
        Server(says(OK)) as elsewhere,
        Server(
            says(
                b"HTTP/1.1 307 Temporary Redirect\r\nContent-Length: 0\r\n"
                + f"Location: http://127.0.0.1:{elsewhere.port}/\r\n\r\n".encode()
            )
        ) as server,
    ):
        assert Web().send("GET", server.url, {}).status == 307
        assert elsewhere.heads == []


def test_who_refuses_before_the_body_has_ended_is_heard():
    refusal = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with Server(says(refusal)) as server:
        body = [b"x" * 262_144] * 40
        length = {"content-length": str(40 * 262_144)}
        try:
            status = Web().send("PUT", server.url, length, body).status
        except UplinkDown:  # the reset has overtaken the answer
            status = 503
    assert status == 503


def test_a_body_that_breaks_off_is_no_whole():
    with (
        Server(says(OK + b"Content-Length: 10\r\n\r\nabc")) as server,
        pytest.raises(UplinkDown, match="7 bytes before the end"),
    ):
        list(Web().read(server.url, {}))


def test_a_body_is_read_only_with_status_200():
    with (
        Server(says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")) as server,
        pytest.raises(UplinkDown, match="status 404"),
    ):
        list(Web().read(server.url, {}))


def test_another_thread_can_cut_it():
    with Server(says(OK, pause_s=3.0)) as server:
        one = Web()
        timer = threading.Timer(0.3, one.cut)
        timer.start()
        begun_s = time.monotonic()
        with pytest.raises(UplinkDown, match="stopped"):
            one.send("GET", server.url, {})
        assert time.monotonic() - begun_s < 10
        with pytest.raises(UplinkDown, match="stopped"):
            one.send("GET", server.url, {})
        timer.join()


def test_nobody_there_is_said():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(UplinkDown, match=f"127.0.0.1:{port}"):
        Web().send("GET", f"http://127.0.0.1:{port}/", {})
