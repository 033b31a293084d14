"""The simulated camera as a process of its own, for benchmarks."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from firmware_sim import streams

ROOT = Path(__file__).parent.parent
PLAZA = ROOT / "firmware_sim" / "media" / "plaza.mp4"


class SimulatedCamera:
    """A camera that plays the plaza, as it is and made small.

    Args:
        folder: where its two streams are made.
        main_width_px: of the main stream; None leaves the picture as it is.
    """

    def __init__(self, folder: Path, main_width_px: int | None = None) -> None:
        streams.make(PLAZA, folder / "main.mp4", main_width_px, 3000)
        streams.make(PLAZA, folder / "sub.mp4", 480, 400)
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "firmware_sim.camera", "--port", "0"),
                *("--control-port", "0", "--main", str(folder / "main.mp4")),
                *("--sub", str(folder / "sub.mp4")),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        if self._process.stdout is None:
            raise RuntimeError("no standard output")
        ports = json.loads(self._process.stdout.readline())
        self.url = f"rtsp://127.0.0.1:{ports['rtsp_port']}/main"
        self._control_port = int(ports["control_port"])

    def do(self, what: str, **values: Any) -> dict[str, Any]:
        """Give one order to its control port, and its answer."""
        address = ("127.0.0.1", self._control_port)
        with socket.create_connection(address, timeout=10) as link:
            link.sendall(json.dumps({"do": what, **values}).encode() + b"\n")
            with link.makefile("rb") as stream:
                return dict(json.loads(stream.readline()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(10)
