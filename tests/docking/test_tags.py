"""What people say of footage: kept, told to the centre, and in the custody log, or nowhere."""

import json

import pytest

from agent import app, cli
from agent.core.clock import SimClock
from agent.core.schema import DEVICE_MIGRATIONS
from agent.core.store import Store
from agent.evidence.keys import DeviceKey

CONFIG = """
device = "dock-1"
site = "yard"
role = "dock"
state_dir = "state"
[delivery]
receiver_key_path = "keys/receiver.pub"
[dock.hardware]
driver = "folder_dock"
folder = "slots"
slots = ["1"]
"""
ID = "01" * 16
BY = ["--by", "A. Weber"]


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "outpost.toml"
    path.write_text(CONFIG)
    DeviceKey.load_or_create(tmp_path / "keys" / "receiver.key")
    store = Store(tmp_path / "state" / app.DATABASE, DEVICE_MIGRATIONS, SimClock())
    store.open()
    store.write(
        lambda connection: connection.execute(
            "INSERT INTO footage (id, session_id, seen_session_id, camera, name, size_bytes,"
            " mtime_ns, here, sha256) VALUES (?, 's', 's', 'bc1', 'A.mp4', 1, 1, 'sealed', ?)",
            (ID, "a" * 64),
        )
    )
    store.close()
    return path


def rows(config, query):
    store = Store(config.parent / "state" / app.DATABASE, DEVICE_MIGRATIONS, SimClock())
    store.open()
    with store.reading() as connection:
        found = [tuple(row) for row in connection.execute(query)]
    store.close()
    return found


def typed(capsys, config, *words):
    code = cli.main(["tag", "--config", str(config), *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_tag_is_in_the_row_in_the_custody_log_and_on_its_way(config, capsys):
    code, out, _ = typed(capsys, config, ID, "--category", "use-of-force", "--incident", "7", *BY)
    assert code == 0
    assert "category: 'use-of-force' (was 'unclassified')" in out
    query = "SELECT category, incident, note, tagged_by FROM footage"
    assert rows(config, query) == [("use-of-force", "7", "", "A. Weber")]
    ((subject, detail),) = rows(
        config, "SELECT subject, detail FROM custody WHERE kind = 'footage.tagged'"
    )
    assert subject == ID
    told = json.loads(detail)
    assert told["old"] == {"category": "unclassified", "incident": "", "note": ""}
    assert (told["new"]["category"], told["by"]) == ("use-of-force", "A. Weber")
    ((topic, payload),) = rows(config, "SELECT topic, payload FROM outbox WHERE needs_receipt")
    assert topic.endswith("/footage/tag")
    assert json.loads(payload)["body"] == told


def test_what_is_said_already_is_not_said_again(config, capsys):
    assert typed(capsys, config, ID, "--note", "x", *BY)[0] == 0
    assert typed(capsys, config, ID, "--note", "x", *BY)[0] == 0
    assert len(rows(config, "SELECT 1 FROM custody WHERE kind = 'footage.tagged'")) == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((ID,), "nothing to say"),
        ((ID, "--category", ""), "category"),
        ((ID, "--category", "x" * 65), "category"),
        ((ID, "--note", "a\nb"), "note"),
        ((ID, "--incident", "\u202e7"), "incident"),
        (("02" * 16, "--note", "x"), "there is none"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(config, capsys, words, why):
    code, _, err = typed(capsys, config, *words, *BY)
    assert code == 1
    assert why in err
    assert rows(config, "SELECT 1 FROM outbox UNION ALL SELECT 1 FROM custody") == []
    assert rows(config, "SELECT category FROM footage") == [("unclassified",)]
