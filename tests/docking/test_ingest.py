"""`outpost ingest` as a person types it: cards of every kind, killed and begun again."""

import base64
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent import cli
from agent.device import status
from agent.evidence import verify
from agent.evidence.keys import PublicKey

ROOT = Path(__file__).parents[2]


@pytest.fixture
def card(tmp_path):
    root = tmp_path / "card"
    dice = random.Random(1)
    for name, size in (("DCIM/100/A.mp4", 9_000_000), ("DCIM/B.mp4", 70_000), ("note.txt", 9)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dice.randbytes(size))
    return root


def typed(capsys, card, out, *words):
    code = cli.main(["ingest", str(card), "--out", str(out), *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def counted(capsys, card, out, *words):
    code, text, err = typed(capsys, card, out, "--json", *words)
    assert code == 0, err
    return json.loads(text)


def sealed(out):
    return sorted(path.read_bytes() for path in (out / "footage").glob("*/recording*"))


def on(card):
    found = (path for path in card.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted(path.read_bytes() for path in found)


def assert_verified(out):
    report = verify.verify(out, PublicKey.load(out / "keys" / "device.pub"))
    assert report.ok, report.text()
    return report.text()


def test_a_card_is_sealed_file_by_file_with_a_signed_list(card, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in card.rglob("*")}
    out = tmp_path / "out"
    code, text, _ = typed(capsys, card, out, "--serial", "BC7", "--officer", "0421")
    assert code == 0
    assert "bc7: 3 files: 3 copied and sealed" in text
    assert f"outpost verify {out} --key {out}/keys/device.pub" in text
    assert sealed(out) == on(card)
    assert "camera 'BC7', officer '0421', 3 files, signed" in assert_verified(out)
    assert {path: path.stat().st_mtime_ns for path in card.rglob("*")} == before


def test_a_second_run_copies_nothing_and_says_so(card, tmp_path, capsys):
    typed(capsys, card, tmp_path / "out")
    code, text, _ = typed(capsys, card, tmp_path / "out")
    assert code == 0
    assert "3 were here already" in text
    assert "nothing new: nothing was copied" in text
    (card / "new.mp4").write_bytes(b"later")
    assert counted(capsys, card, tmp_path / "out")["counts"]["copied"] == 1
    assert "follows" in assert_verified(tmp_path / "out")


def test_the_same_bytes_under_two_names_are_kept_once(card, tmp_path, capsys):
    (card / "COPY.mp4").write_bytes((card / "DCIM/B.mp4").read_bytes())
    counts = counted(capsys, card, tmp_path / "out")["counts"]
    assert (counts["copied"], counts["same_bytes"]) == (3, 1)
    assert len(sealed(tmp_path / "out")) == 3


def test_a_key_of_ones_own_signs(card, tmp_path, capsys):
    key = tmp_path / "evidence.key"
    code, text, _ = typed(capsys, card, tmp_path / "out", "--key", str(key))
    assert code == 0
    assert f"--key {tmp_path}/evidence.pub" in text
    assert verify.verify(tmp_path / "out", PublicKey.load(tmp_path / "evidence.pub")).ok
    assert not (tmp_path / "out" / "keys").exists()


@pytest.mark.parametrize(
    ("out", "words", "why"),
    [
        ("card/out", (), "outside of"),
        (".", (), "not around it"),
        ("out", ("--serial", "x" * 129), "--serial"),
        ("out", ("--officer", "a\nb"), "--officer"),
    ],
)
def test_what_makes_no_sense_is_refused(card, tmp_path, capsys, out, words, why):
    code, _, err = typed(capsys, card, tmp_path / out, *words)
    assert code == 78
    assert why in err
    code, _, err = typed(capsys, tmp_path / "nothing", tmp_path / "out")
    assert (code, "no folder" in err) == (78, True)


def test_an_empty_card_gives_a_list_of_nothing(tmp_path, capsys):
    (tmp_path / "card").mkdir()
    assert counted(capsys, tmp_path / "card", tmp_path / "out")["counts"]["files"] == 0
    assert_verified(tmp_path / "out")


def test_a_hostile_card_is_kept_named_and_listed(tmp_path, capsys):
    card, out = tmp_path / "card", tmp_path / "out"
    deep = os.fsencode(card)
    for _ in range(8):
        deep += b"/" + b"\xff" * 250
        Path(os.fsdecode(deep)).mkdir(parents=True)
    (card / "gpj.\u202e4pm").write_bytes(b"right to left")
    (card / "-rf").write_bytes(b"an option")
    Path(os.fsdecode(os.fsencode(card) + b"/" + b"\xfe" * 255)).write_bytes(b"no letters")
    Path(os.fsdecode(deep + b"/deep.mp4")).write_bytes(b"at the bottom")
    (card / "link.mp4").symlink_to("/etc/passwd")
    os.mkfifo(card / "pipe.mp4")
    with (card / "giant.mp4").open("wb") as stream:
        os.truncate(stream.fileno(), 1 << 43)
    counts = counted(capsys, card, out)["counts"]
    assert (counts["copied"], counts["ignored"]) == (4, 3)
    assert sealed(out) == sorted([b"right to left", b"an option", b"no letters", b"at the bottom"])
    assert_verified(out)
    (path,) = (out / "sessions").glob("*/session.json")
    document = json.loads(base64.b64decode(json.loads(path.read_text())["payload"]))
    names = {entry["name"] for entry in document["files"]}
    assert "gpj.\\u202e4pm" in names
    assert {entry["name"] for entry in document["ignored"]} == {
        *("link.mp4", "pipe.mp4", "giant.mp4")
    }
    assert {entry["category"] for entry in document["files"]} == {"unclassified"}


def test_two_runs_into_one_folder_at_once_are_refused(card, tmp_path, capsys):
    with status.alone(tmp_path / "out"):
        code, _, err = typed(capsys, card, tmp_path / "out")
    assert code == 1
    assert "allowed: one" in err


def test_several_cards_go_into_one_folder(card, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    (other / "A.mp4").write_bytes(b"of another camera")
    assert counted(capsys, card, tmp_path / "out", "--serial", "BC1")["counts"]["copied"] == 3
    assert counted(capsys, other, tmp_path / "out", "--serial", "BC2")["counts"]["copied"] == 1
    assert counted(capsys, card, tmp_path / "out", "--serial", "BC1")["counts"]["copied"] == 0
    assert sealed(tmp_path / "out") == sorted([*on(card), *on(other)])
    assert "follows" in assert_verified(tmp_path / "out")


@pytest.mark.crash
def test_a_run_that_is_killed_at_any_moment_goes_on(tmp_path, capsys):
    card, out = tmp_path / "card", tmp_path / "out"
    card.mkdir()
    dice = random.Random(7)
    for number in range(12):
        (card / f"MOV_{number:04}.mp4").write_bytes(dice.randbytes(dice.randint(0, 12_000_000)))
    argv = [sys.executable, "-m", "agent", "ingest", str(card), "--out", str(out)]
    kills = 0
    for _ in range(7):
        child = subprocess.Popen(
            argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(dice.uniform(0.2, 0.7))
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            kills += 1
        child.wait()
        for path in (out / "footage").glob("*/recording*"):
            assert path.read_bytes() in on(card)
    assert kills
    done = counted(capsys, card, out)
    assert done["counts"]["files"] == 12
    assert sealed(out) == on(card)
    assert_verified(out)
    assert not list((out / "parts").iterdir())
