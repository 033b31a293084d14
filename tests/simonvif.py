"""The simulated camera's ONVIF side as a process of its own."""

import json
import select
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[1]
USER, PASSWORD = "viewer", "sesame-7Q!x"


class SimOnvif:
    """A running ONVIF device."""

    def __init__(
        self, *options: str, main: str = "rtsp://127.0.0.1:9/main", user: str = USER
    ) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "firmware_sim.onvif", "--port", "0", "--control-port", "0"),
                *("--main", main, "--sub", main.replace("/main", "/sub")),
                *("--user", user, "--password", PASSWORD, *options),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], 15)[0]:
            self._process.kill()
            raise AssertionError("the simulated ONVIF device did not start")
        line = self._process.stdout.readline()
        assert line, self._process.stderr.read().decode()
        ports = json.loads(line)
        self.port, self.control_port = ports["port"], ports["control_port"]

    def do(self, what: str, **values: Any) -> Mapping[str, Any]:
        """Give one order and its answer."""
        with socket.create_connection(("127.0.0.1", self.control_port), timeout=10) as link:
            link.sendall(json.dumps({"do": what, **values}).encode() + b"\n")
            with link.makefile("rb") as stream:
                return json.loads(stream.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.communicate(timeout=10)
