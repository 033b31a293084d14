"""The simulated camera as a process of its own, and a line to its control port."""

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
START_S = 15


class SimCamera:
    """A running camera."""

    def __init__(
        self, main: Path, *options: str, user: str = USER, password: str = PASSWORD
    ) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "firmware_sim.camera", "--port", "0"),
                *("--control-port", "0", "--main", str(main), "--sub", str(main)),
                *("--user", user, "--password", password, *options),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], START_S)[0]:
            self.stop()
            raise AssertionError("the simulated camera did not start")
        ports = json.loads(self._process.stdout.readline())
        self.rtsp_port, self.control_port = ports["rtsp_port"], ports["control_port"]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.rtsp_port}/main"

    def do(self, what: str, **values: Any) -> Mapping[str, Any]:
        """Give one order and its answer."""
        return self.say(json.dumps({"do": what, **values}).encode() + b"\n")

    def say(self, line: bytes) -> Mapping[str, Any]:
        """Send raw bytes to the control port and read one answer."""
        with socket.create_connection(("127.0.0.1", self.control_port), timeout=10) as link:
            link.sendall(line)
            with link.makefile("rb") as stream:
                return json.loads(stream.readline())

    def connect(self) -> socket.socket:
        """Give a raw connection to the RTSP port."""
        return socket.create_connection(("127.0.0.1", self.rtsp_port), timeout=5)

    def stop(self) -> str:
        """End the process; gives what it wrote to standard error."""
        self._process.terminate()
        _, errors = self._process.communicate(timeout=10)
        return errors.decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.stop()
