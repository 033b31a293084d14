"""A thousand reconnects of one link, and two hundred devices that come back after an outage.

The first counts threads, descriptors and memory while a gate before the broker cuts the connection
again and again. The second kills the broker under two hundred links for longer than the jitter
window and notes when each is back; the peer is paho's own reconnect, which doubles its wait without
jitter. `python -m benchmarks.storm docs/storm.svg` draws both.
"""

import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from agent.core.clock import RealClock
from agent.core.errors import UplinkDown
from agent.delivery.config import BrokerConfig
from agent.delivery.link import Link
from agent.delivery.session import Lost, MqttSession, Session, SessionOptions
from agent.device import proc
from benchmarks._table import markdown
from firmware_sim import broker as broker_sim
from firmware_sim.gate import Gate

CUTS, WARM = 1000, 50
DEVICES = 200
WINDOW_S = 20.0  # of the jitter: delivery.reconnect_max_s
OUTAGE_S = 25.0
BACK_S = 60.0
KIB = 1024
STEP_S = 0.02
BAR, GAP, HIGH, WIDE = 12, 2, 120, 24
INK, PALE = "#1d4ed8", "#b45309"


def table() -> str:
    """Measure, and give both tables."""
    return _tables()[0]


def _tables() -> tuple[str, list[float], list[float]]:
    if broker_sim.mosquitto_path() is None:
        return "skipped: mosquitto is not installed", [], []
    logging.disable(logging.WARNING)
    grown = _thousand()
    names = ("threads", "file descriptors", "RSS, KiB")
    bounds = ("0", "0", "no growth: up to +2,048")
    first = markdown(
        [f"after {CUTS:,} reconnects", "measured", "bound"],
        [
            (name, f"{number:+,d}", bound)
            for name, number, bound in zip(names, grown, bounds, strict=True)
        ],
    )
    ours, plain = _storm(_our_devices), _storm(_plain_devices)
    rows = [(name, *_spread(back)) for name, back in (("paho", plain), ("Outpost", ours))]
    head = ["two hundred devices", "back", "first s", "last s", "most within one second"]
    return f"{first}\n\n{markdown(head, rows)}", ours, plain


def _thousand() -> tuple[int, int, int]:
    with broker_sim.start("mosquitto") as broker:
        gate = Gate(broker.port).start()
        devices = _our_devices(gate.port, 1, 0.05)
        device, before = devices[0], _reading()
        for number in range(CUTS + WARM):
            if number == WARM:
                before = _reading()
            sessions = device.sessions
            gate.cut()
            while device.sessions == sessions:
                time.sleep(STEP_S)
        after = _reading()
        device.stop()
        gate.close()
    return after[0] - before[0], after[1] - before[1], after[2] - before[2]


class _Device:
    """One link that only listens; notes when it is connected."""

    def __init__(self, port: int, number: int, most_s: float) -> None:
        self.sessions = 0
        self.back_s = 0.0
        self._stop = threading.Event()
        clock, options = RealClock(), SessionOptions(f"device-{number}")
        broker = BrokerConfig(port=port)
        self._link = Link("uplink", lambda: MqttSession(broker, options, clock), clock, most_s)
        run = (self._serve, self._stop, lambda: None)
        self._thread = threading.Thread(target=self._link.run, args=run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10.0)

    def _serve(self, session: Session) -> None:
        self.back_s = time.monotonic()
        self.sessions += 1
        while not self._stop.is_set():
            for event in session.poll(0.2):
                if isinstance(event, Lost):
                    raise UplinkDown(event.reason)


class _Plain:
    """paho with its own thread and its own reconnect."""

    def __init__(self, port: int, number: int) -> None:
        self.sessions = 0
        self.back_s = 0.0
        self._client = Client(
            CallbackAPIVersion.VERSION2, f"plain-{number}", protocol=MQTTProtocolVersion.MQTTv5
        )
        self._client.on_connect = self._note
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._client.on_connect = None

    def _note(self, *_: object) -> None:
        self.back_s = time.monotonic()
        self.sessions += 1


Devices = Sequence[_Device | _Plain]


def _our_devices(port: int, count: int = DEVICES, most_s: float = WINDOW_S) -> Devices:
    return _up([_Device(port, number, most_s) for number in range(count)])


def _plain_devices(port: int) -> Devices:
    return _up([_Plain(port, number) for number in range(DEVICES)])


def _up(devices: Devices) -> Devices:
    while not all(device.sessions for device in devices):
        time.sleep(STEP_S)
    return devices


def _storm(start: Callable[[int], Devices]) -> list[float]:
    """Give how many seconds after the broker's return each device was back."""
    with broker_sim.start("mosquitto") as broker:
        devices = start(broker.port)
        before = [device.sessions for device in devices]
        broker.kill()
        time.sleep(OUTAGE_S)
        returned_s = time.monotonic()
        broker.restart()
        while time.monotonic() - returned_s < BACK_S:
            if all(item.sessions > known for item, known in zip(devices, before, strict=True)):
                break
            time.sleep(STEP_S)
        back = [device.back_s - returned_s for device in devices]
        for device in devices:
            device.stop()
    return sorted(late_s for late_s in back if late_s > 0)


def _spread(back: Sequence[float]) -> tuple[str, str, str, str]:
    most = max(sum(begin <= late < begin + 1 for late in back) for begin in back)
    return str(len(back)), f"{back[0]:.1f}", f"{back[-1]:.1f}", str(most)


def _reading() -> tuple[int, int, int]:
    time.sleep(1.0)
    gc.collect()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    return threading.active_count(), descriptors, proc.usage(os.getpid()).rss_bytes // KIB


def _svg(ours: Sequence[float], plain: Sequence[float]) -> str:
    """Two histograms, a bar a second, one above the other."""
    width, height = 70 + WIDE * (BAR + GAP), 2 * (HIGH + 60)
    root = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
    parts = [
        f'{root} font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for row, (name, back, ink) in enumerate((("Outpost", ours, INK), ("paho", plain, PALE))):
        counts = [sum(begin <= late < begin + 1 for late in back) for begin in range(WIDE)]
        base, most = (row + 1) * (HIGH + 60) - 36, max(*counts, 1)
        title = f"{name}: {len(back)} devices back, most in one second {most}"
        parts.append(f'<text x="40" y="{base - HIGH - 8}">{title}</text>')
        for begin, count in enumerate(counts):
            high = round(HIGH * count / most)
            x = 40 + begin * (BAR + GAP)
            parts.append(
                f'<rect x="{x}" y="{base - high}" width="{BAR}" height="{high}" fill="{ink}"/>'
            )
            if begin % 4 == 0:
                parts.append(f'<text x="{x}" y="{base + 14}">{begin}</text>')
        parts.append(f'<text x="40" y="{base + 28}">seconds after the broker is back</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    text, found, peer = _tables()
    print(text)
    if sys.argv[1:]:
        Path(sys.argv[1]).write_text(_svg(found, peer))
