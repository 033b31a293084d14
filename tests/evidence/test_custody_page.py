"""docs/CUSTODY.md: the script for checking without Outpost does what it says, and names exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.evidence.keys import DeviceKey
from agent.evidence.verify import verify
from tests.evidence.handover import sealed

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "CUSTODY.md").read_text()
KEY = DeviceKey(Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))


@pytest.fixture
def clip(tmp_path):
    (tmp_path / "device.pub").write_bytes(KEY.public.pem)
    return sealed(tmp_path / "clip", {"clip-1.mp4": b"video" * 900, "path.json": b"[]"}, KEY)[0]


def run_script(clip):
    """Run the page's script away from our code."""
    (script,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    argv = [sys.executable, "-I", "-c", script, str(clip), str(clip.parent / "device.pub")]
    return subprocess.run(argv, cwd=clip.parent, capture_output=True, text=True, check=False)


def test_script_of_the_page_passes_what_is_right(clip):
    ended = run_script(clip)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["ok", "clip-1.mp4", "ok", "path.json"]


def test_script_of_the_page_finds_a_changed_file_and_a_changed_manifest(clip):
    (clip / "clip-1.mp4").write_bytes(b"Video" + b"video" * 899)
    ended = run_script(clip)
    assert ended.returncode == 1
    assert "WRONG clip-1.mp4" in ended.stdout
    manifest = (clip / "manifest.json").read_text()
    (clip / "manifest.json").write_text(manifest.replace("eyJ", "eyK", 1))
    assert "InvalidSignature" in run_script(clip).stderr


def test_words_of_the_page_are_those_of_verify(clip):
    (clip / "clip-1.mp4").write_bytes(b"video" * 899)
    said = verify(clip, KEY.public).first_wrong
    assert re.search(r"clip-1\.mp4: \d+ bytes; manifest: \d+", said)
    (clip / "clip-1.mp4").write_bytes(b"video" * 900)
    (clip / "clip-2.mp4").write_bytes(b"")
    for words in ("does not stand in the manifest", "holds no manifest.json", "no plain file"):
        assert words in PAGE
    assert "does not stand in the manifest" in verify(clip, KEY.public).first_wrong


def test_links_and_files_of_the_page_exist():
    for name in re.findall(r"\]\(([A-Z_]+\.md)\)", PAGE):
        assert (ROOT / "docs" / name).is_file()
    for name in re.findall(r"`(agent/[\w/.]+)`", PAGE):
        assert (ROOT / name).is_file()
