"""A headless Chromium that plays files: a page loads them, and tells the server what it saw."""

import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TIMEOUT_S = 60
NAMES = ("chromium", "chromium-browser", "google-chrome")

PAGE = """<!doctype html><meta charset="utf-8"><video id="v" muted></video><canvas id="c"></canvas>
<script>
const video = document.getElementById("v"), canvas = document.getElementById("c");
const seen = name => new Promise((done, fail) => {
  video.addEventListener(name, done, {once: true});
  video.addEventListener("error", () => fail(new Error(video.error.message)), {once: true});
  setTimeout(() => fail(new Error("no " + name)), 15000);
});
function look() {
  canvas.width = video.videoWidth; canvas.height = video.videoHeight;
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0);
  const half = x => context.getImageData(x, video.videoHeight >> 1, 1, 1).data[1];
  return [half(video.videoWidth >> 2), half(3 * video.videoWidth >> 2)];
}
async function play(name, times) {
  const found = {name, pictures: {}};
  try {
    const ready = seen("loadeddata");
    video.src = name;
    await ready;
    found.size = [video.videoWidth, video.videoHeight];
    for (const at of times) {
      const there = seen("seeked");
      video.currentTime = at;
      await there;
      found.pictures[at] = [video.currentTime, look()];
    }
    video.currentTime = 0;
    await seen("seeked");
    const ended = seen("ended");
    video.playbackRate = 4;
    await video.play();
    await ended;
    found.played_s = video.currentTime;
    found.duration_s = video.duration;
    found.error = null;
  } catch (problem) { found.error = String(problem); }
  return found;
}
(async () => {
  const wanted = await (await fetch("wanted")).json();
  for (const [name, times] of wanted)
    await fetch("result", {method: "POST", body: JSON.stringify(await play(name, times))});
  await fetch("end", {method: "POST", body: ""});
})();
</script>"""


def program() -> str | None:
    """Where a browser is."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def play(
    folder: Path, wanted: Mapping[str, list[float]], profile: Path
) -> dict[str, Mapping[str, Any]]:
    """Play files of a folder and seek in them; gives what the browser says of each.

    Args:
        folder: with the files.
        wanted: the times to seek to, in seconds, by file.
        profile: empty folder for the browser.
    """
    with _serving(folder, wanted) as server:
        address = f"http://127.0.0.1:{server.server_address[1]}/"
        argv = [str(program()), "--headless=new", "--no-sandbox", "--disable-gpu", "--mute-audio"]
        argv += ["--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"]
        argv += [
            "--autoplay-policy=no-user-gesture-required",
            f"--user-data-dir={profile}",
            address,
        ]
        with (profile.parent / "browser.log").open("wb") as log:
            browser = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            assert server.is_over.wait(TIMEOUT_S), f"the browser told only {server.found}"
        finally:
            browser.terminate()
            browser.wait(10)
        return server.found


class _Server(http.server.ThreadingHTTPServer):
    """Serves a folder to one page."""

    def __init__(self, folder: Path, wanted: Mapping[str, list[float]]) -> None:
        super().__init__(("127.0.0.1", 0), _Desk)
        self.folder = folder
        self.wanted = wanted
        self.found: dict[str, Mapping[str, Any]] = {}
        self.is_over = threading.Event()


class _Desk(http.server.BaseHTTPRequestHandler):
    """Answers the page, with Range, without which a browser cannot seek."""

    server: "_Server"
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        if name == "":
            self._answer(200, PAGE.encode(), "text/html")
        elif name == "wanted":
            self._answer(
                200, json.dumps(list(self.server.wanted.items())).encode(), "application/json"
            )
        elif name in self.server.wanted:
            self._file((self.server.folder / name).read_bytes())
        else:
            self._answer(404, b"", "text/plain")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/result":
            result = json.loads(body)
            self.server.found[result["name"]] = result
        else:
            self.server.is_over.set()
        self._answer(200, b"{}", "application/json")

    def _file(self, content: bytes) -> None:
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if part is None:
            self._answer(200, content, "video/mp4")
            return
        begin = int(part[1])
        end = min(int(part[2] or len(content)), len(content) - 1)
        told = {"Content-Range": f"bytes {begin}-{end}/{len(content)}"}
        self._answer(206, content[begin : end + 1], "video/mp4", told)

    def _answer(
        self, status: int, body: bytes, kind: str, more: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        head = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Accept-Ranges": "bytes",
        }
        for name, value in (head | dict(more or {})).items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):  # the browser has seen enough
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _serving(folder: Path, wanted: Mapping[str, list[float]]) -> Iterator[_Server]:
    server = _Server(folder, wanted)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
