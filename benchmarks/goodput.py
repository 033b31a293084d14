"""A large file over 20 Mbit/s and 80 ms, beside HTTP PUT of the same bytes; and the alarms then.

Ours goes through mosquitto to the receiver and ends with the receipt that it signed; PUT ends with
the answer of a plain server, which has hashed and synced the file too. Both senders use BBR where
the kernel has it. Ten alarms a second go over the live link all the while; each is timed from
`put` to the broker's acknowledgement, and also alone on the idle link.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from agent.evidence.keys import DeviceKey
from benchmarks import _link
from benchmarks._sender import BROKER_PORT, DEVICE_KEY, RECEIVER_KEY
from benchmarks._table import markdown
from benchmarks.backlog import TOPICS
from firmware_sim import broker as broker_sim

MBIT, DELAY_MS = 20, 40  # one way
BYTES = 40_000_000
ROUNDS = 2
START_S = 3.0
WAYS: Final = ("put", "ours")
CONF = """\
listener {port}
allow_anonymous true
set_tcp_nodelay true
max_queued_messages 0
log_type error
"""

Found = dict[str, list[dict[str, float]]]


def table() -> str:
    """Measure, and give the table."""
    if broker_sim.mosquitto_path() is None:
        return "skipped: mosquitto is not installed"
    if reason := _link.missing():
        return f"skipped: {reason}"
    with _link.Link() as link, _Centre(link) as centre:
        link.shape(DELAY_MS, 0, MBIT)
        idle = centre.device("idle", 0)
        clean = _rounds(centre, BYTES)
        link.shape(DELAY_MS, 1, MBIT)
        lossy = _rounds(centre, BYTES)
    rows = [
        *_lines("no loss", clean),
        ("its goodput against PUT", "1x", _ratio(clean), "at least 0.95x"),
        *_lines("1 % loss", lossy),
        ("its goodput against PUT", "1x", _ratio(lossy), "at least 0.95x"),
        ("alarms p50, ms (idle " + f"{idle['p50_ms']:.0f})", *_late(clean, "p50_ms"), ""),
        ("alarms p95, ms (idle " + f"{idle['p95_ms']:.0f})", *_late(clean, "p95_ms"), ""),
        (
            "alarms p95 against idle",
            *(f"{_mean(clean[way], 'p95_ms') / idle['p95_ms']:.2f}x" for way in WAYS),
            "up to 1.6x",
        ),
    ]
    return markdown(["what", "HTTP PUT", "Outpost", "bound"], rows)


def _rounds(centre: "_Centre", size_bytes: int) -> Found:
    found: Found = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way in WAYS:
            found[way].append(centre.device(way, size_bytes))
    return found


def _lines(name: str, found: Found) -> list[tuple[str, ...]]:
    each = [" / ".join(f"{run['bytes_per_s'] / 1e6:.2f}" for run in found[way]) for way in WAYS]
    return [(f"goodput, {name}, MB/s each round", *each, "")]


def _late(found: Found, name: str) -> list[str]:
    return [f"{_mean(found[way], name):.0f}" for way in WAYS]


def _ratio(found: Found) -> str:
    put, ours = (_mean(found[way], "bytes_per_s") for way in WAYS)
    return f"{ours / put:.2f}x"


def _mean(runs: Sequence[dict[str, float]], name: str) -> float:
    return sum(run[name] for run in runs) / len(runs)


class _Centre:
    """Broker, receiver and PUT server on the far host."""

    def __init__(self, link: _link.Link) -> None:
        self._link = link
        self._stack = ExitStack()
        self._folder = Path()

    def __enter__(self) -> Self:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        key = DeviceKey.load_or_create(self._folder / DEVICE_KEY)
        (self._folder / "devices").mkdir()
        (self._folder / "devices" / f"{TOPICS.device}.pub").write_bytes(key.public.pem)
        DeviceKey.load_or_create(self._folder / RECEIVER_KEY)
        conf = self._folder / "mosquitto.conf"
        conf.write_text(CONF.format(port=BROKER_PORT))
        self._start([str(broker_sim.mosquitto_path()), "-c", str(conf)])
        receive = ["--site", TOPICS.site, "--store", str(self._folder / "store")]
        receive += ["--broker", f"127.0.0.1:{BROKER_PORT}"]
        receive += ["--devices", str(self._folder / "devices")]
        self._start([sys.executable, "-m", "agent", "receive", *receive])
        self._start([sys.executable, "-m", "benchmarks._sender", "serve", str(self._folder)])
        time.sleep(START_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def device(self, way: str, size_bytes: int) -> dict[str, float]:
        """Run the device, and give what it measured."""
        argv = [sys.executable, "-m", "benchmarks._sender", way, str(self._folder), str(size_bytes)]
        ran = subprocess.run(
            self._link.argv("device", argv), check=True, stdout=subprocess.PIPE, text=True
        )
        found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
        return found

    def _start(self, argv: Sequence[str]) -> None:
        process = subprocess.Popen(
            self._link.argv("centre", argv), cwd=_link.ROOT, stderr=subprocess.DEVNULL
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)
