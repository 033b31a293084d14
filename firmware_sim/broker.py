"""An MQTT v5 broker for the demo and the tests, as a process that can be killed with -9.

`mosquitto` is what a site runs, here with the settings that keep messages over a kill: it saves
on each change, an instant after it has acknowledged. `embedded` is rumqttd from the iotcore
wheel: always there, keeps nothing on the disk. Either way the process started is the broker
itself and no wrapper, and it ends with the thread that started it.
"""

import argparse
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

KINDS = ("auto", "mosquitto", "embedded")

HOST = "127.0.0.1"
START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5.0
START_TRIES = 5  # a port found free may be taken before the broker binds it
POLL_S = 0.02
SBIN = "/usr/sbin:/usr/local/sbin"  # not on everybody's PATH
PR_SET_PDEATHSIG = 1

MOSQUITTO_CONF = """\
{user}listener {port} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {directory}/
autosave_interval 1
autosave_on_changes true
max_queued_messages 0
set_tcp_nodelay true
sys_interval 0
log_dest file {directory}/mosquitto.log
log_type error
log_type warning
log_type notice
{extra}
"""

EMBEDDED_TOML = """\
id = 0

[router]
id = 0
max_connections = 256
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 4

[v5.1]
name = "v5"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 10000
max_payload_size = 2097152
max_inflight_count = 200
dynamic_filters = true
"""


class Broker:
    """A running broker; the same port and directory serve it again after `restart`."""

    def __init__(self, kind: str, port: int, directory: Path, extra: str = "") -> None:
        self.kind = kind
        self.port = port
        self.directory = directory
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the broker itself."""
        if self._process is None:
            raise RuntimeError(f"broker on port {self.port}: not started")
        return self._process.pid

    @property
    def log_path(self) -> Path:
        """Where the broker writes what it has to say."""
        return self.directory / ("mosquitto.log" if self.kind == "mosquitto" else "output.log")

    def restart(self) -> None:
        """Start on the same port and directory; returns once the port accepts connections.

        Raises:
            RuntimeError: the broker ended at once or did not listen in time.
        """
        _check_free(self.kind, self.port)
        with (self.directory / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "firmware_sim.broker", "--serve"),
                    *("--kind", self.kind, "--port", str(self.port)),
                    *("--directory", str(self.directory), "--extra", self._extra),
                ],
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._wait_listening(self._process)

    def kill(self) -> None:
        """Kill with -9, as a power cut or the out-of-memory killer would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop in order; a second call does nothing."""
        self._end(signal.SIGTERM)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_TIMEOUT_S)

    def _wait_listening(self, process: "subprocess.Popen[bytes]") -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            code = process.poll()
            if code is not None:
                self._process = None
                raise RuntimeError(f"broker {self.kind} on port {self.port}: ended with {code}")
            with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), 0.5):
                return
            time.sleep(POLL_S)
        self.kill()
        raise RuntimeError(f"broker {self.kind} on port {self.port}: not listening")


def mosquitto_path() -> str | None:
    """Where mosquitto is installed, or None."""
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:{SBIN}")


def start(
    kind: str = "auto", port: int = 0, directory: Path | None = None, extra: str = ""
) -> Broker:
    """Start a broker on the loopback interface and wait until it listens.

    Args:
        kind: one of KINDS; auto takes mosquitto where it is installed.
        port: 0 finds a free one.
        directory: holds its log and what it keeps; when None a temporary one, left behind.
        extra: further lines of mosquitto.conf; the embedded broker has no use for them.

    Raises:
        ValueError: the kind is unknown.
        RuntimeError: it did not start; the message says why.
    """
    if kind not in KINDS:
        raise ValueError(f"broker kind {kind!r}; allowed: {', '.join(KINDS)}")
    chosen = kind if kind != "auto" else "mosquitto" if mosquitto_path() else "embedded"
    folder = directory or Path(tempfile.mkdtemp(prefix="outpost-broker-"))
    folder.mkdir(parents=True, exist_ok=True)
    for tries_left in range(START_TRIES if port == 0 else 1, 0, -1):
        broker = Broker(chosen, port or _free_port(), folder, extra)
        try:
            broker.restart()
        except RuntimeError:
            if tries_left == 1:
                raise
        else:
            return broker
    raise RuntimeError("unreachable")


def main(arguments: list[str] | None = None) -> int:
    """Run a broker until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m firmware_sim.broker", description=__doc__)
    parser.add_argument("--port", type=int, default=1883, help="0 finds a free one")
    parser.add_argument("--kind", choices=KINDS, default="auto")
    parser.add_argument("--directory", type=Path, default=None, help="log and persistence")
    parser.add_argument("--extra", default="", help="further lines of mosquitto.conf")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        _serve(options.kind, options.port, options.directory, options.extra)
    with start(options.kind, options.port, options.directory, options.extra) as broker:
        print(f"{broker.kind} broker on {HOST}:{broker.port}, pid {broker.pid}", flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    return 0


def _serve(kind: str, port: int, directory: Path, extra: str) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # kept over exec
    if kind == "mosquitto":
        _become_mosquitto(port, directory, extra)
    from iotcore import IotCoreBroker  # noqa: PLC0415 - mosquitto needs no wheel

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    config = directory / "embedded.toml"
    config.write_text(EMBEDDED_TOML.format(port=port))
    IotCoreBroker(config_path=str(config)).run_forever()


def _become_mosquitto(port: int, directory: Path, extra: str) -> None:
    program = mosquitto_path()
    if program is None:
        sys.exit("mosquitto is not installed")
    user = "user root\n" if os.geteuid() == 0 else ""  # else it gives up its own directory
    config = directory / "mosquitto.conf"
    config.write_text(
        MOSQUITTO_CONF.format(user=user, port=port, directory=directory.absolute(), extra=extra)
    )
    os.execv(program, [program, "-c", str(config)])  # noqa: S606 - the broker is this process


def _check_free(kind: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise RuntimeError(f"broker {kind} on port {port}: {error.strerror}") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
