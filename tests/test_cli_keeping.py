"""`outpost hold`, `pin` and `retention` as people type them, with and without a running agent."""

import json
from pathlib import Path

import pytest

from agent import app, cli
from agent.core.clock import RealClock, SimClock
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.device import status
from agent.device.requests import Requests
from agent.evidence.keys import DeviceKey
from agent.roles.keepsakes import box_words
from tests.delivery.centre import Running
from tests.vision.recording import rows
from tests.vision.shelf import Shelf

CONFIG = """
device = "cam-1"
site = "yard"
role = "camera"
state_dir = "state"
[delivery]
receiver_key_path = "keys/receiver.pub"
[[cameras]]
id = "gate"
main = { driver = "file", path = "gate.mp4" }
[retention]
max_gb = 1
recordings_min_gb = 0.1
"""
WHO = ["--reason", "case 7", "--by", "A. Weber"]
SPAN = ["--camera", "gate", "--from", "2023-11-14T22:00:00", "--to", "2023-11-14T23:30:00+01:00"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "outpost.toml"
    path.write_text(CONFIG)
    DeviceKey.load_or_create(tmp_path / "keys" / "receiver.key")
    return path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with one receipted clip, whose agent is not running."""
    folder = tmp_path / "state"
    store = Store(folder / app.DATABASE, DEVICE_MIGRATIONS, SimClock())
    store.open()
    shelf = Shelf(store, folder)
    shelf.clip("c1", 2_000_000)
    shelf.segment(3_000_000)
    store.close()
    return folder


def said(capsys, *argv: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def listed(capsys, config: Path) -> dict:
    return json.loads(said(capsys, "hold", "list", "--config", config, "--json")[1])


def test_a_hold_is_placed_listed_and_let_go_without_an_agent(capsys, config, state) -> None:
    code, out, _ = said(capsys, "hold", "place", "--config", config, *SPAN, *WHO)
    assert code == 0
    word, hold_id = out.split()
    assert word == "hold"
    (found,) = listed(capsys, config)["holds"]
    assert (found["id"], found["camera"], found["reason"], found["placed_by"]) == (
        *(hold_id, "gate"),
        *("case 7", "A. Weber"),
    )
    assert found["end_utc_ns"] - found["start_utc_ns"] == 1800 * 10**9  # the zone was read
    assert "case 7" in said(capsys, "hold", "list", "--config", config)[1]
    assert said(capsys, "hold", "release", hold_id, "--config", config, *WHO)[0] == 0
    assert listed(capsys, config)["holds"] == []
    code, _, err = said(capsys, "hold", "release", hold_id, "--config", config, *WHO)
    assert (code, "there are: none" in err) == (1, True)


def test_a_clip_is_pinned_and_unpinned(capsys, config, state) -> None:
    assert said(capsys, "pin", "clip", "c1", "--config", config, *WHO)[0] == 0
    assert [pin["clip_id"] for pin in listed(capsys, config)["pins"]] == ["c1"]
    told = said(capsys, "retention", "--explain", "--config", config)[1]
    assert "clip c1 is pinned: case 7 (A. Weber)" in told
    assert said(capsys, "unpin", "clip", "c1", "--config", config, *WHO)[0] == 0
    code, _, err = said(capsys, "unpin", "clip", "c1", "--config", config, *WHO)
    assert (code, err) == (1, "outpost: clip 'c1': is not pinned\n")


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--camera", "gat", *SPAN[2:], *WHO], "camera 'gat': unknown; allowed: gate"),
        (["--camera", "No Such", *SPAN[2:], *WHO], "hold: data.camera must match pattern"),
        ([*SPAN[:2], "--from", "now", "--to", "2020-01-01", *WHO], "ends before it begins"),
        ([*SPAN[:2], "--from", "2100-01-01", "--to", "2100-01-02", *WHO], "not yet begun"),
        ([*SPAN, "--reason", "", "--by", "A. Weber"], "reason"),
        ([*SPAN, "--reason", "case 7", "--by", " "], "by"),
    ],
)
def test_a_wrong_hold_is_told_in_words(capsys, config, state, argv, says: str) -> None:
    code, _, err = said(capsys, "hold", "place", "--config", config, *argv)
    assert code == 1
    assert says in err
    assert listed(capsys, config)["holds"] == []


def test_a_time_that_is_none_is_told_with_an_example(capsys, config, state) -> None:
    argv = ["--camera", "gate", "--from", "yesterday", "--to", "now", *WHO]
    code, _, err = said(capsys, "hold", "place", "--config", config, *argv)
    assert code == 78
    assert "time 'yesterday'; allowed: now, or as 2026-05-31T14:05:00" in err


def test_a_missing_reason_is_a_wrong_word(capsys, config) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["hold", "place", "--config", str(config), *SPAN, "--by", "A. Weber"])
    assert end.value.code == 2
    assert "--reason" in capsys.readouterr().err


def test_a_box_that_never_ran_has_nothing_to_hold(capsys, config) -> None:
    code, _, err = said(capsys, "hold", "place", "--config", config, *SPAN, *WHO)
    assert (code, "no agent has run here yet" in err) == (1, True)


def test_a_running_agent_does_it(capsys, config, state) -> None:
    store = Store(state / app.DATABASE, DEVICE_MIGRATIONS, RealClock())
    store.open()
    shelf = Shelf(store, state)
    with (
        status.alone(state),
        Running(Requests(state, box_words(shelf.holds), RealClock())),
    ):
        code, out, err = said(capsys, "pin", "clip", "c1", "--config", config, *WHO)
        assert (code, out) == (0, "clip c1 pinned\n"), err
        code, _, err = said(capsys, "pin", "clip", "c1", "--config", config, *WHO)
        assert code == 1
        assert err.endswith("outpost: clip c1: is pinned already\n")
    (entry,) = rows(store, "SELECT detail FROM custody WHERE kind = 'clip.pinned'")
    assert json.loads(entry["detail"])["via"].startswith("user ")
    store.close()


def test_retention_explains_what_goes_next_and_why(capsys, config, state) -> None:
    code, told, _ = said(capsys, "retention", "--explain", "--config", config)
    assert code == 0
    assert "receipted clip: 1, 2.0 MB" in told
    assert "Recordings take 3.0 MB; they may take 98" in told
    assert "At the present rate that is " in told
    document = json.loads(said(capsys, "retention", "--config", config, "--json")[1])
    assert document["recordings"]["hours_in_all"] > 0
    assert document["recordings"]["rate_bytes_per_s"] == {"gate": 300_000}
    assert document["clips"]["refused"] == []
    assert "database" in said(capsys, "retention", "--config", config)[1]


def test_retention_says_what_is_lacking(capsys, config, state) -> None:
    values = ["--set", "retention.max_gb=0.011", "--set", "retention.recordings_min_gb=0.01"]
    told = said(capsys, "retention", "--explain", "--config", config, *values)[1]
    assert "NO VIDEO is kept of events of severity info" in told
