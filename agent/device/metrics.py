"""The box's figures as Prometheus reads them: the same ones as a beat's, and the two links'.

Source: Prometheus text format 0.0.4 and its conventions for names: base units (seconds, bytes), a
counter ends in `_total`. What is unknown is left out, never written as 0 or -1.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from agent import __version__
from agent.core.clock import NS_PER_S
from agent.delivery.transfer import TransfersStatus
from agent.delivery.uplink import UplinkStatus
from agent.device import proc
from agent.device.telemetry import Facts

MS_PER_S = 1000
CONNECTED = "connected"
STREAMING = "streaming"
RUNNING = "running"
QUARANTINE = "quarantine"
STORAGE = {
    "share": "What everything may take of the disk.",
    "used": "What everything takes of it.",
    "recordings_max": "What recordings may take of it.",
    "headroom": "Room for more clips without receipts.",
}
SCHEDULE = {  # of a site that has one
    "bytes_today": ("today_bytes", "Sent since midnight."),
    "file_bytes_today": ("files_today_bytes", "Sent of files since midnight."),
}

Labels = Mapping[str, str]
Sample = tuple[Labels, float]


@dataclass(frozen=True, slots=True)
class Figures:
    """Where the figures come from; each is called in the thread of whoever asks."""

    site: str
    device: str
    role: str
    facts: Facts
    uplink: Callable[[], UplinkStatus]
    transfers: Callable[[], TransfersStatus]
    backlog: Callable[[], tuple[int, int]]  # files waiting, their bytes
    clock: Callable[[], Mapping[str, object]]  # source, error_ms


class Page:
    """The text, family by family; every family has its HELP and TYPE once."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def gauge(self, name: str, what: str, samples: Iterable[Sample]) -> None:
        """Add something that goes up and down."""
        self._add("gauge", name, what, samples)

    def counter(self, name: str, what: str, samples: Iterable[Sample]) -> None:
        """Add something that only grows while the agent runs."""
        self._add("counter", f"{name}_total", what, samples)

    def text(self) -> str:
        """Give the page so far."""
        return "".join(f"{line}\n" for line in self._lines)

    def _add(self, kind: str, name: str, what: str, samples: Iterable[Sample]) -> None:
        lines = [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]
        if lines:
            self._lines += [f"# HELP {name} {what}", f"# TYPE {name} {kind}", *lines]


def exposition(figures: Figures) -> str:
    """Give all figures as they are now.

    Raises:
        StorageError: the database or the disk cannot be read.
    """
    page = Page()
    _box(page, figures)
    _queues(page, figures)
    _uplink(page, figures.uplink())
    _files(page, figures.transfers())
    _cameras(page, figures.facts)
    return page.text()


def _box(page: Page, figures: Figures) -> None:
    facts, used = figures.facts, proc.usage(os.getpid())
    about = {"site": figures.site, "device": figures.device, "role": figures.role}
    page.gauge("outpost_info", "Who this is.", [({**about, "version": __version__}, 1)])
    page.counter(
        "outpost_cpu_seconds", "Processor time of all processes.", [({}, max(0.0, used.cpu_s))]
    )
    page.gauge("outpost_resident_memory_bytes", "Memory of all processes.", [({}, used.rss_bytes)])
    page.gauge("outpost_temperature_celsius", "Hottest zone.", _known(proc.temperature_c()))
    free_bytes = proc.disk_free_bytes(facts.folder)
    page.gauge("outpost_disk_free_bytes", "Free where the database lies.", [({}, free_bytes)])
    for name, what in STORAGE.items():
        size_bytes = facts.storage().get(f"{name}_bytes")
        told = size_bytes if isinstance(size_bytes, int) else None
        page.gauge(f"outpost_storage_{name}_bytes", what, _known(told))
    clock = figures.clock()
    source, error_ms = str(clock["source"]), int(str(clock["error_ms"]))
    page.gauge("outpost_clock_source", "What the clock follows.", [({"source": source}, 1)])
    error_s = error_ms / MS_PER_S if error_ms >= 0 else None
    page.gauge("outpost_clock_error_seconds", "Largest error of the clock.", _known(error_s))
    page.gauge(
        "outpost_worker_running",
        "1 while this part of the agent runs.",
        [
            ({"worker": name}, health.state == RUNNING)
            for name, health in sorted(facts.workers().items())
        ],
    )
    page.gauge(
        "outpost_part_state",
        "1 for the state that this part of the box is in.",
        [
            ({"part": name, "state": health.state}, 1)
            for name, health in sorted(facts.parts().items())
        ],
    )


def _queues(page: Page, figures: Figures) -> None:
    depths = dict(figures.facts.queues())
    aside = depths.pop(QUARANTINE, None)
    rows = [({"lane": lane}, count) for lane, count in depths.items()]
    page.gauge("outpost_outbox_rows", "Messages that wait for the centre.", rows)
    page.gauge("outpost_outbox_quarantined_rows", "Messages set aside.", _known(aside))
    scheduled = figures.facts.schedule()
    for key, (name, what) in SCHEDULE.items():
        told = scheduled.get(key)
        page.gauge(f"outpost_link_{name}", what, _known(told if isinstance(told, int) else None))
    files, size_bytes = figures.backlog()
    page.gauge("outpost_files_waiting", "Files without a receipt.", [({}, files)])
    page.gauge("outpost_files_waiting_bytes", "Their size.", [({}, size_bytes)])
    receipt_ns = figures.facts.last_receipt_utc_ns()
    last_s = None if receipt_ns is None else receipt_ns / NS_PER_S
    page.gauge(
        "outpost_last_receipt_timestamp_seconds", "When the centre last signed.", _known(last_s)
    )


def _uplink(page: Page, status: UplinkStatus) -> None:
    is_up = status.link.state == CONNECTED
    page.gauge("outpost_uplink_connected", "1 while the live link is up.", [({}, is_up)])
    page.counter("outpost_uplink_sessions", "Connections made.", [({}, status.link.sessions)])
    page.counter(
        "outpost_uplink_published_messages", "Sent, repeats included.", [({}, status.published)]
    )
    outcomes = {
        "accepted": status.accepted,
        "receipted": status.receipted,
        "returned": status.kept,
        "set_aside": status.set_aside,
    }
    page.counter(
        "outpost_uplink_messages",
        "What became of them: the broker's word, the centre's, returned, set aside.",
        [({"outcome": outcome}, count) for outcome, count in outcomes.items()],
    )
    page.counter(
        "outpost_uplink_bad_receipts", "Receipts that do not hold.", [({}, status.bad_receipts)]
    )
    page.gauge("outpost_uplink_in_flight_messages", "Not acknowledged.", [({}, status.in_flight)])
    page.gauge("outpost_uplink_awaited_receipts", "Not signed for.", [({}, status.awaited)])
    page.gauge("outpost_uplink_held_topics", "Topics that wait.", [({}, status.held_topics)])


def _files(page: Page, status: TransfersStatus) -> None:
    is_up = status.link.state == CONNECTED
    page.gauge("outpost_transfers_connected", "1 while the file link is up.", [({}, is_up)])
    page.gauge(
        "outpost_transfers_centre_full",
        "1 while the centre has no room.",
        [({}, status.is_centre_full)],
    )
    page.gauge("outpost_transfers_open", "Files under way.", [({}, status.open)])
    page.counter("outpost_transfers_sent_bytes", "Sent, repeats too.", [({}, status.sent_bytes)])
    page.counter("outpost_transfers_receipted", "Files signed for.", [({}, status.receipted)])
    page.counter("outpost_transfers_refused", "Files refused.", [({}, status.refused)])
    page.counter("outpost_transfers_bad_messages", "Messages ignored.", [({}, status.bad_messages)])
    page.gauge("outpost_transfers_window_bytes", "Most under way.", [({}, status.window_bytes)])
    page.gauge("outpost_transfers_chunk_bytes", "Size of a piece.", [({}, status.chunk_bytes)])
    page.gauge(
        "outpost_transfers_bandwidth_bytes_per_second",
        "As measured.",
        [({}, status.bandwidth_bytes_per_s)],
    )
    page.gauge("outpost_transfers_delay_seconds", "Least.", [({}, status.delay_ms / MS_PER_S)])


def _cameras(page: Page, facts: Facts) -> None:
    looks = {name: look() for name, look in sorted(facts.cameras.items())}
    seen = {name: facts.counters(name) for name in looks}
    page.gauge(
        "outpost_camera_streaming",
        "1 while its pictures are recorded.",
        [({"camera": name}, look.state == STREAMING) for name, look in looks.items()],
    )
    page.gauge(
        "outpost_camera_state",
        "1 for the state that it is in.",
        [({"camera": name, "state": look.state}, 1) for name, look in looks.items()],
    )
    page.gauge(
        "outpost_camera_lag_seconds",
        "How late packets come by its own clock.",
        [
            ({"camera": name}, look.lag_ms / MS_PER_S)
            for name, look in looks.items()
            if look.lag_ms is not None
        ],
    )
    page.counter(
        "outpost_camera_packets",
        "Packets received.",
        [({"camera": name}, look.packets) for name, look in looks.items()],
    )
    page.counter(
        "outpost_camera_dropped_packets",
        "Packets lost to a slow disk.",
        [({"camera": name}, look.dropped) for name, look in looks.items()],
    )
    page.gauge(
        "outpost_camera_ring_bytes",
        "Held in memory.",
        [({"camera": name}, look.ring_bytes) for name, look in looks.items()],
    )
    page.counter(
        "outpost_camera_frames",
        "Pictures decoded.",
        [({"camera": name}, found.frames) for name, found in seen.items()],
    )
    page.counter(
        "outpost_camera_inferences",
        "Runs of the detector.",
        [({"camera": name}, found.inferences) for name, found in seen.items()],
    )
    blind = [
        ({"camera": name, "rule": str(item["rule"])}, item)
        for name, found in seen.items()
        for item in found.blind
    ]
    page.gauge(
        "outpost_rule_blind",
        "1 while the rule cannot see.",
        [(labels, bool(item["reason"])) for labels, item in blind],
    )
    page.counter(
        "outpost_rule_blind_seconds",
        "How long it could not.",
        [(labels, float(str(item["total_s"]))) for labels, item in blind],
    )


def _known(value: float | None) -> list[Sample]:
    return [] if value is None else [({}, value)]


def _labels(labels: Labels) -> str:
    parts = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{','.join(parts)}}}" if labels else ""


def _escaped(value: str) -> str:
    text = value.encode(errors="replace").decode()
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(value)
