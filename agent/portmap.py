"""Learning which USB port is which slot of a dock: the technician plugs, we watch."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.core.clock import Clock
from drivers import _usb

LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Learnt:
    """A slot and its ports: the one that something was plugged into, and its other half."""

    slot: str
    ports: tuple[str, ...]
    device: str  # what was plugged, in words


@dataclass(frozen=True, slots=True)
class Odd:
    """Something was plugged that teaches nothing."""

    why: str


def learn(
    slots: Sequence[str], sys_root: Path, clock: Clock, stop: threading.Event
) -> Iterator[Learnt | Odd]:
    """Wait until a camera hangs in each slot, one after the other, and give its ports.

    What hangs on any port now is no slot's camera until it is plugged again. Ends early when `stop`
    is set.
    """
    passed_over = {device.plug for device in _usb.scan(sys_root).values()}
    return _watch(slots, sys_root, clock, stop, passed_over)


def _watch(
    slots: Sequence[str],
    sys_root: Path,
    clock: Clock,
    stop: threading.Event,
    passed_over: set[str],
) -> Iterator[Learnt | Odd]:
    owners: dict[str, str] = {}
    waiting = list(slots)
    while waiting and not clock.wait(stop, LOOK_S):
        for port, device in _usb.scan(sys_root).items():
            if device.plug in passed_over or not waiting:
                continue
            passed_over.add(device.plug)
            if why := _odd(device, owners):
                yield Odd(why)
                continue
            ports = tuple(filter(None, (port, device.peer)))
            owners.update(dict.fromkeys(ports, waiting[0]))
            yield Learnt(waiting.pop(0), ports, f"{device.usb_id} {device.product}".strip())


def _odd(device: _usb.Device, owners: Mapping[str, str]) -> str:
    if device.refusal:
        return f"{device.refusal}: not a camera"
    if device.port in owners:
        return f"this port is slot {owners[device.port]} already"
    return ""


def toml(learnt: Sequence[Learnt]) -> str:
    """Give the part of a configuration that says so."""
    lines = ["[dock.hardware]", 'driver = "usb_dock"']
    for item in learnt:
        ports = ", ".join(f'"{port}"' for port in item.ports)
        lines += ["", "[[dock.hardware.slots]]", f'name = "{item.slot}"', f"ports = [{ports}]"]
    return "\n".join(lines)
