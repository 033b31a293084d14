"""The figures for Prometheus: well formed by its parser, named by its conventions, and right."""

import re
from dataclasses import replace

import pytest

from agent.delivery.link import LinkStatus
from agent.delivery.transfer import TransfersStatus
from agent.delivery.uplink import UplinkStatus
from agent.device.metrics import Figures, exposition
from agent.supervisor import WorkerHealth
from tests.device.test_telemetry import NOW_NS, Box, Camera

LINE = re.compile(r'([a-z_]+)(\{([a-z_]+="([^"\\\n]|\\.)*",?)*\})? (-?[0-9.e+-]+)')
UNITS = ("seconds", "bytes", "celsius")


def figures(folder, **changes):
    box = Box(folder)
    box.camera = Camera(lag_ms=140, packets=12_915, dropped=3, ring_bytes=5_242_880)
    box.blind = ({"rule": "kerb", "reason": "dark", "total_s": 312.4},)
    box.workers = {
        "uplink": WorkerHealth("running", NOW_NS, ""),
        "clips": WorkerHealth("failed", NOW_NS, "killed"),
    }
    box.parts = {"disk": WorkerHealth("ready", NOW_NS, "")}
    link = LinkStatus("connected", NOW_NS, 3)
    uplink = UplinkStatus(link, 82, 41, 40, 5, 1, 2, 7, 6, 1, NOW_NS)
    files = TransfersStatus(
        link, 2, 730_000, 9, 1, 4, 262_144, 65_536, 2_500_000, 81, NOW_NS, False
    )
    made = Figures(
        "plaza",
        "cam-1",
        "camera",
        replace(
            box.facts,
            queues=lambda: {"alarm": 2, "telemetry": 0, "quarantine": 4},
            storage=lambda: {"used_bytes": 61_440, "refused": []},
            schedule=lambda: {"bytes_today": 48_210, "file_bytes_today": 41_900, "files": "wait"},
        ),
        lambda: uplink,
        lambda: files,
        lambda: (3, 1_234_567),
        lambda: {"source": "ntp", "error_ms": 12},
    )
    return replace(made, **changes)


def samples(text):
    """Read the page by the letter of the format; gives name and labels to value."""
    found, kinds, name = {}, {}, ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ")[2]
            assert name not in kinds, "a family stands once"
            assert len(line.split(" ", 3)[3]) > 0
        elif line.startswith("# TYPE "):
            assert line.split(" ")[2] == name
            kinds[name] = line.split(" ")[3]
        else:
            match = LINE.fullmatch(line)
            assert match, line
            assert match[1] == name, "samples stand below their family"
            key = match[1] + (match[2] or "")
            assert key not in found, "a sample stands once"
            found[key] = float(match[5])
    assert text.endswith("\n")
    return found, kinds


def test_figures_are_those_of_the_box(tmp_path):
    found, _ = samples(exposition(figures(tmp_path)))
    for key, value in {
        'outpost_outbox_rows{lane="alarm"}': 2,
        "outpost_outbox_quarantined_rows": 4,
        "outpost_files_waiting_bytes": 1_234_567,
        "outpost_uplink_connected": 1,
        "outpost_uplink_sessions_total": 3,
        'outpost_uplink_messages_total{outcome="receipted"}': 40,
        "outpost_uplink_bad_receipts_total": 2,
        "outpost_transfers_sent_bytes_total": 730_000,
        "outpost_transfers_delay_seconds": 0.081,
        'outpost_camera_packets_total{camera="gate"}': 12_915,
        'outpost_camera_dropped_packets_total{camera="gate"}': 3,
        'outpost_camera_lag_seconds{camera="gate"}': 0.14,
        'outpost_camera_streaming{camera="gate"}': 1,
        'outpost_camera_state{camera="gate",state="streaming"}': 1,
        "outpost_clock_error_seconds": 0.012,
        'outpost_clock_source{source="ntp"}': 1,
        'outpost_worker_running{worker="uplink"}': 1,
        'outpost_worker_running{worker="clips"}': 0,
        'outpost_part_state{part="disk",state="ready"}': 1,
    }.items():
        assert found[key] == value, key
    assert found["outpost_disk_free_bytes"] > 0
    assert found["outpost_storage_used_bytes"] == 61_440
    assert found["outpost_link_today_bytes"] == 48_210
    assert found["outpost_link_files_today_bytes"] == 41_900
    assert found["outpost_resident_memory_bytes"] > 1e6
    assert 'outpost_outbox_rows{lane="quarantine"}' not in found


def test_names_follow_the_conventions(tmp_path):
    found, kinds = samples(exposition(figures(tmp_path)))
    assert len(kinds) > 30
    for name, kind in kinds.items():
        assert re.fullmatch(r"outpost_[a-z][a-z_]*", name)
        assert kind in ("gauge", "counter")
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"_(ms|s|mib|kb|count|pct)(_|$)", name), f"{name}: base units only"
        for unit in UNITS:
            rest = name.removesuffix("_total").removesuffix("_per_second")
            assert f"_{unit}_" not in rest, "the unit comes last"
    assert all(value >= 0 for value in found.values())


def test_prometheus_own_parser_takes_it(tmp_path):
    parser = pytest.importorskip("prometheus_client.parser", reason="needs prometheus-client")
    families = {
        family.name: family
        for family in parser.text_string_to_metric_families(exposition(figures(tmp_path)))
    }
    packets = families["outpost_camera_packets"]
    assert packets.type == "counter"
    assert [(each.labels, each.value) for each in packets.samples] == [({"camera": "gate"}, 12_915)]
    assert families["outpost_info"].samples[0].labels["device"] == "cam-1"
    assert all(family.documentation for family in families.values())


def test_what_is_unknown_is_left_out(tmp_path):
    box = Box(tmp_path)
    box.camera = Camera(lag_ms=None)
    unknown = figures(tmp_path, facts=box.facts, clock=lambda: {"source": "none", "error_ms": -1})
    found, _ = samples(exposition(unknown))
    assert "outpost_clock_error_seconds" not in found
    assert found['outpost_clock_source{source="none"}'] == 1
    assert not [key for key in found if "lag_seconds" in key or "last_receipt" in key]
    assert not [key for key in found if "rule_blind" in key]


def test_a_label_holds_any_text(tmp_path):
    strange = 'a"b\\c\nd é \ud800'
    found, _ = samples(exposition(figures(tmp_path, site=strange)))
    (info,) = [key for key in found if key.startswith("outpost_info")]
    assert 'site="a\\"b\\\\c\\nd é ?"' in info


def test_a_link_that_is_down_is_0(tmp_path):
    made = figures(tmp_path)
    down = replace(made.uplink(), link=LinkStatus("waiting", NOW_NS, 3, "refused"))
    found, _ = samples(exposition(replace(made, uplink=lambda: down)))
    assert found["outpost_uplink_connected"] == 0
