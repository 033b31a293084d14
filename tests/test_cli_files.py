"""`outpost files retry` as people type it, without a running agent."""

import pytest

from agent import app, cli
from agent.core.clock import RealClock
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.delivery.ledger import FOR_GOOD
from agent.evidence.keys import DeviceKey
from tests.delivery.box import Box
from tests.test_cli_keeping import CONFIG


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "outpost.toml"
    path.write_text(CONFIG)
    DeviceKey.load_or_create(tmp_path / "keys" / "receiver.key")
    return path


@pytest.fixture
def fid(tmp_path):
    store = Store(tmp_path / "state" / app.DATABASE, DEVICE_MIGRATIONS, RealClock())
    store.open()
    box = Box(store, tmp_path / "state")
    (fid,) = box.seal(clip_mp4=b"123")
    box.ledger.refuse(box.ledger.find(fid), "not in its manifest", FOR_GOOD)
    store.close()
    return fid


def test_a_person_lets_a_file_go_again_once_and_the_log_says_who(config, fid, capsys):
    retry = ["files", "retry", fid, "--config", str(config), "--by", "A. Weber"]
    assert cli.main(["inspect", "files", "--config", str(config)]) == 0
    assert "refused_for_good" in capsys.readouterr().out
    assert cli.main(retry) == 0
    assert f"file {fid} (clip.mp4) is offered again" in capsys.readouterr().out
    assert cli.main(["inspect", "custody", "--config", str(config)]) == 0
    assert "A. Weber" in capsys.readouterr().out
    assert cli.main(retry) == 1
    assert "waiting; allowed: one that is refused" in capsys.readouterr().err


def test_an_unknown_file_is_named(config, fid, capsys):
    assert fid
    assert cli.main(["files", "retry", "x", "--config", str(config), "--by", "A. Weber"]) == 1
    assert "file 'x': unknown" in capsys.readouterr().err
