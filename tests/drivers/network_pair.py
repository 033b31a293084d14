"""Two networks of their own on this machine, joined by a cable: a camera's side and ours."""

import os
import subprocess
from types import TracebackType
from typing import Self

CAMERA, BOX = "10.77.0.2", "10.77.0.1"
_COMMAND_S = 10


class NetworkPair:
    """The namespaces `camera_side` and `box_side`; gone at the end, with all that runs there."""

    def __init__(self) -> None:
        self.camera_side, self.box_side = f"oc{os.getpid()}", f"ob{os.getpid()}"

    def __enter__(self) -> Self:
        try:
            self._join()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    def words(self, side: str, *words: str) -> list[str]:
        """Give the command line that runs something on one side."""
        return ["ip", "netns", "exec", side, *words]

    def _join(self) -> None:
        sides = {self.camera_side: CAMERA, self.box_side: BOX}
        for side in sides:
            _ip("netns", "add", side)
        camera, box = sides
        _ip("link", "add", "cable", "netns", camera, "type", "veth", "peer", "cable", "netns", box)
        for side, address in sides.items():
            _ip("-n", side, "address", "add", f"{address}/24", "dev", "cable")
            _ip("-n", side, "link", "set", "lo", "up")
            _ip("-n", side, "link", "set", "cable", "up")
            _ip("-n", side, "route", "add", "239.0.0.0/8", "dev", "cable")

    def _remove(self) -> None:
        for side in (self.camera_side, self.box_side):
            subprocess.run(
                ["ip", "netns", "del", side], capture_output=True, timeout=_COMMAND_S, check=False
            )


def why_not() -> str:
    """Say why there can be no such networks here; empty if they can be."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with NetworkPair():
            return ""
    except FileNotFoundError:
        return "the program ip is missing (apt-get install iproute2)"
    except subprocess.CalledProcessError as error:
        return f"no network namespaces: {error.stderr.decode().strip()}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], capture_output=True, timeout=_COMMAND_S, check=True)
