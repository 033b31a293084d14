"""The port for Prometheus: one page, and no client that keeps the next one from it."""

import http.client
import socket
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from agent.core.clock import RealClock
from agent.core.errors import ConfigError, DeviceBusy, StorageError
from agent.device import scrape
from agent.device.scrape import MOST_CLIENTS, PATIENCE_S, MetricsConfig, Scrape
from tests.delivery.centre import Running

PAGE = "# HELP x What.\n# TYPE x gauge\nx 1\n"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(render=lambda: PAGE, bind="127.0.0.1"):
    config = MetricsConfig(enabled=True, bind=bind, port=free_port())
    with Running(Scrape(config, render, RealClock())):
        for _ in range(500):
            with socket.socket(socket.AF_INET6 if ":" in bind else socket.AF_INET) as probe:
                if probe.connect_ex((bind, config.port)) == 0:
                    break
            time.sleep(0.01)
        yield config.port


def asked(port, path="/metrics", method="GET", body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def said(port, content):
    """Say something by hand; gives all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(content)
        answer = b""
        try:
            while piece := client.recv(4096):
                answer += piece
        except ConnectionError:
            pass
        return answer


def test_the_page_is_given_to_any_client():
    with serving() as port:
        status, text, headers = asked(port)
        assert (status, text) == (200, PAGE)
        assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert asked(port, "/metrics?name=x")[0] == 200
        assert asked(port, method="HEAD")[:2] == (200, "")
        assert said(port, b"GET /metrics HTTP/1.0\n\n").endswith(PAGE.encode())
        assert said(port, b"GET /metrics\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_everything_else_is_refused():
    with serving() as port:
        for path in ("/", "/metrics/", "/../etc/passwd", "//metrics", "/metricsx", "/%6detrics"):
            assert asked(port, path)[0] == 404
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "get"):
            assert asked(port, method=method)[0] == 405
        for rubbish in (b"\r\n\r\n", b"\0" * 100 + b"\r\n\r\n", b"GET\r\n\r\n", b"GET \r\n\r\n"):
            assert said(port, rubbish).split(b"\r\n")[0].endswith((b"Allowed", b"Found"))
        assert said(port, b"x" * 100_000) == b""
        assert asked(port)[0] == 200


def test_slow_and_silent_clients_hold_nobody_up():
    with serving() as port:
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(5 * MOST_CLIENTS)]
        idle[-1].sendall(b"GET /metr")
        begun_s = time.monotonic()
        assert asked(port)[0] == 200
        assert time.monotonic() - begun_s < PATIENCE_S
        for client in idle:  # each is let go of, by its time or because there were too many
            client.settimeout(PATIENCE_S + 10)
            with suppress(ConnectionError):
                assert client.recv(10) == b""
            client.close()
        assert asked(port)[0] == 200


def test_a_client_that_does_not_read_is_let_go_of():
    with serving(lambda: PAGE * 500_000) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            time.sleep(PATIENCE_S + 1)
            client.settimeout(10)
            got = 0
            try:
                while piece := client.recv(1 << 20):
                    got += len(piece)
            except ConnectionError:
                pass
        assert got < len(PAGE) * 500_000
        assert asked(port, "/x")[0] == 404


def test_a_flood_of_questions_asks_the_box_once_a_second():
    times = []
    with serving(lambda: times.append(1) or PAGE) as port:
        for _ in range(100):
            assert asked(port)[0] == 200
    assert len(times) < 50


def test_figures_that_cannot_be_read_are_told_and_read_again():
    is_broken = threading.Event()
    is_broken.set()

    def render():
        if is_broken.is_set():
            raise StorageError("outpost.db: disk I/O error")
        return PAGE

    with serving(render) as port:
        assert asked(port)[:2] == (503, "outpost.db: disk I/O error\n")
        is_broken.clear()
        assert asked(port)[0] == 200


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("127.0.0.1", 0)) as other:
        config = MetricsConfig(enabled=True, port=other.getsockname()[1])
        worker = Scrape(config, lambda: PAGE, RealClock())
        with pytest.raises(DeviceBusy, match=f"127.0.0.1 port {config.port}: Address already"):
            worker.run(threading.Event(), lambda: None)


def test_it_is_off_and_local_unless_asked_for():
    assert MetricsConfig() == MetricsConfig(enabled=False, bind="127.0.0.1", port=9477)
    assert MetricsConfig(bind="::1").bind == "::1"
    for wrong in ("", "localhost", "127.0.0.1:9", "256.0.0.1", "\0"):
        with pytest.raises(ConfigError, match="allowed: an IPv4 or IPv6 address"):
            MetricsConfig(bind=wrong)


def test_a_client_that_goes_at_once_leaves_nothing_open():
    with serving() as port:
        for _ in range(200):
            socket.create_connection(("127.0.0.1", port)).close()
        assert asked(port)[0] == 200
        assert scrape.MOST_CLIENTS < 200
