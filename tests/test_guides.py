"""The code in the guides, put where the guide says and run as a reader would run it.

Each guide's module is added to the program in a fresh interpreter, by one more folder on the
package's path: nothing else is touched, which is what the guides promise.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

DRIVER = """
import importlib, io, socket, sys, threading, time
from pathlib import Path

import av
import drivers
drivers.__path__.append(sys.argv[1])

from agent import app
from agent.core.clock import RealClock
from agent.core.errors import ConfigError, SourceLost

film = io.BytesIO()
plaza = av.open("firmware_sim/media/plaza.mp4")
with plaza as source, av.open(film, "w", format="mpegts") as target:
    stream = target.add_stream_from_template(source.streams.video[0])
    for number, packet in enumerate(source.demux(video=0)):
        if packet.dts is not None and number < 60:
            packet.stream = stream
            target.mux(packet)

def serve(server, rounds, is_cut):
    for _ in range(rounds):
        line, _ = server.accept()
        with line:
            line.sendall(film.getvalue())
            if not is_cut:
                line.recv(1)  # until the other side closes

def started(rounds, is_cut):
    server = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, args=(server, rounds, is_cut), daemon=True)
    thread.start()
    return server, server.getsockname()[1]

def source(port, more=""):
    main = '{driver = "mpegts", host = "127.0.0.1", port = %d%s}' % (port, more)
    config = app.load_config(
        Path("configs/camera.toml"), ["cameras.0.main=" + main], check_files=False
    )
    choice = config.cameras[0].main
    return importlib.import_module("drivers." + choice.kind).build(choice.settings, RealClock())

assert "mpegts" in app.kinds("driver")
assert "## Driver `mpegts`" in app.config_page()
try:
    source(1, ", prot = 1")
except ConfigError as error:
    assert "cameras[0].main.prot: unknown key; did you mean 'port'?" in str(error), error

server, port = started(2, is_cut=True)
camera = source(port)
for _ in range(2):  # it opens again
    info = camera.open()
    assert (info.codec, info.width_px > 0) == ("h264", True), info
    found = []
    try:
        found.extend(camera.packets())
        raise SystemExit("an ended stream is SourceLost")
    except SourceLost as error:
        assert str(error) == f"tcp://127.0.0.1:{port}: the encoder ended the stream", error
server.close()

server, port = started(1, is_cut=False)
camera = source(port)
camera.open()
got = []
for packet in camera.packets():
    got.append(packet)
    if len(got) == 20:
        threading.Timer(0.2, camera.close).start()
        begun = time.monotonic()
assert time.monotonic() - begun < 2, "close ends packets"
camera.close()
server.close()
assert len(got) > 20
assert got[0].is_key
assert all(packet.pts is not None and packet.dts is not None for packet in got)

server, port = started(1, is_cut=False)
camera = source(port, ", stall_s = 1")
camera.open()
try:
    list(camera.packets())
    raise SystemExit("a stall is SourceLost")
except SourceLost as error:
    assert "timed out" in str(error), error
server.close()
try:
    source(port).open()
    raise SystemExit("nobody listens: SourceLost")
except SourceLost as error:
    assert "refused" in str(error), error
print("held")
"""

ANALYTIC = """
import sys
from pathlib import Path

from agent.vision import analytics
analytics.__path__.append(sys.argv[1])

from agent import app
from agent.core.errors import ConfigError
from agent.core.model import Phase
from tests.vision.tracks import play, track, views
from agent.core.model import View

def load(enough):
    rule = '[{kind = "group", name = "queue", zone = "crossing", enough = %s}]' % enough
    return app.load_config(
        Path("configs/camera.toml"), ["cameras.0.rules=" + rule], check_files=False
    ).cameras[0]

assert "## Rule `group`" in app.config_page()
try:
    load("1")
except ConfigError as error:
    assert "enough: 1 is out of range" in str(error), error

camera = load("3")
group, rule = analytics.rule("group"), camera.rules[0].settings

def view(t_us, count):
    people = [track([(t_us, 0.5 + 0.01 * n, 0.5)], track_id=n) for n in range(count)]
    away = track([(t_us, 0.05, 0.05)], track_id=99)
    return View(t_us, 0, (*people, away))

made = [view(n * 200_000, count) for n, count in enumerate([0, 2, 3, 4, 3, 2, 0])]
said = play(group, made, rule, camera.places)
assert [signal.phase for signal in said] == [Phase.BEGIN, Phase.END], said
assert said[0].t_us == 400_000
assert said[0].measured == {"count": 3.0}
assert said[0].track_ids == (0, 1, 2), "the one outside does not count"
assert (said[1].t_us, said[1].reason) == (1_000_000, "thinned out")
assert said == play(group, made, rule, camera.places)
print("held")
"""


@pytest.mark.parametrize(
    ("page", "module", "script"),
    [
        ("ADDING_A_DRIVER.md", "mpegts", DRIVER),
        ("ADDING_AN_ANALYTIC.md", "group", ANALYTIC),
    ],
)
def test_the_module_of_a_guide_does_what_the_guide_says(
    page: str, module: str, script: str, tmp_path: Path
) -> None:
    text = (ROOT / "docs" / page).read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 1
    assert f"`{module}.py`" in text or f"/{module}.py`" in text
    (tmp_path / f"{module}.py").write_text(blocks[0])
    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "held\n", "")


@pytest.mark.parametrize("page", ["ADDING_A_DRIVER.md", "ADDING_AN_ANALYTIC.md"])
def test_the_module_of_a_guide_passes_the_house_linter(page: str, tmp_path: Path) -> None:
    block = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)[0]
    for words in (["check", "--ignore", "INP001"], ["format", "--check"]):
        result = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--no-cache", "--stdin-filename", "x.py", "-"],
            cwd=ROOT,
            input=block,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
