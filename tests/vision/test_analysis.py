"""The analysis process: what it says, also when sources fail or the model is refused."""

import io
import itertools
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from agent.core.clock import RealClock, SimClock
from agent.core.config import Kinded
from agent.core.errors import AuthRefused, ConfigError, SourceLost, Unsupported
from agent.vision import analysis, lines
from agent.vision.analytics import camera_health
from agent.vision.budget import Budget
from agent.vision.config import DetectorConfig, EventConfig
from agent.vision.motion import STILL, MotionResult
from agent.vision.pipeline import Pipeline
from agent.vision.reader import Look, Reader, Slot
from tests.vision.cameras import Script, Walker, plaza
from tests.vision.support import PLAZA, ROOT, FileSource, frames

pytestmark = pytest.mark.video


class Paced(FileSource):
    """The plaza at `speed` times its own budget; close ends it at once."""

    def __init__(self, speed: float = 1.0, *, is_endless: bool = False) -> None:
        super().__init__(PLAZA)
        self.speed = speed
        self.is_endless = is_endless
        self.closed = threading.Event()

    def packets(self):
        begun = time.monotonic()
        for packet in super().packets():
            due = begun + float(packet.pts * packet.time_base) / self.speed
            if self.closed.wait(max(0.0, due - time.monotonic())):
                return
            yield packet
        if self.is_endless:
            self.closed.wait(30)

    def close(self) -> None:
        self.closed.set()


class Broken:
    """A source that fails in one way."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.closes = 0

    def open(self):
        raise self.error

    def packets(self):
        raise AssertionError("never opened")

    def close(self) -> None:
        self.closes += 1


class Ear(io.StringIO):
    """Standard output that looks at every line the moment it is written."""

    def __init__(self, state_dir: Path, *, until=lambda _said: False) -> None:
        super().__init__()
        self.state_dir = state_dir
        self.said: list[dict] = []
        self.missing: list[str] = []
        self.until = until
        self.stop = threading.Event()

    def write(self, text: str) -> int:
        for line in text.splitlines():
            said = json.loads(line)
            self.said.append(said)
            if said["type"] == "event" and said["event"]["snapshot"]:
                path = self.state_dir / said["event"]["snapshot"]
                if not path.exists():
                    self.missing.append(str(path))
            if self.until(said):
                self.stop.set()
        return len(text)

    def of(self, kind: str) -> list[dict]:
        return [said for said in self.said if said["type"] == kind]

    def states(self, camera: str = "plaza") -> list[str]:
        return [said["state"] for said in self.of("camera") if said["camera"] == camera]


def run(ear: Ear, build, cameras=None, detector=None, limit_s: float = 15.0) -> float:
    """Run the analysis until the ear has heard enough; gives how long stopping took."""
    begun = [0.0]

    def watchdog() -> None:
        ear.stop.wait(limit_s)
        begun[0] = time.monotonic()
        ear.stop.set()

    thread = threading.Thread(target=watchdog)
    thread.start()
    analysis.run(
        [plaza()] if cameras is None else cameras,
        build,
        detector or DetectorConfig(model="int8"),
        ear.state_dir,
        RealClock(),
        ear,
        ear.stop,
    )
    stopped = time.monotonic()
    thread.join()
    return stopped - begun[0]


def test_a_whole_video_is_told_from_ready_to_ended(tmp_path):
    ear = Ear(tmp_path, until=lambda said: said.get("state") == "ended")
    run(ear, lambda _stream: Paced(speed=10.0))
    assert ear.said[0]["type"] == "ready"
    assert ear.said[0]["model"] == "ssd_mobilenetv2_oidv4_int8@0830e93f343b"
    assert ear.said[0]["invoke_ms"] > 0
    assert ear.states() == ["connecting", "streaming", "ended"]
    stats = ear.of("stats")
    assert len(stats) >= 3
    assert set(stats[-1]) == {
        "type",
        "camera",
        "frames",
        "inferences",
        "motion_open",
        "tracks",
        "lag_ms",
        "cpu_ms",
        "blind",
    }
    stages = {"decode", "motion", "picture", "detect", "flow", "track", "rules"}
    assert set(stats[-1]["cpu_ms"]) == stages
    assert stats[-1]["frames"] > 100
    events = [lines.from_line(json.dumps(said)) for said in ear.of("event")]
    closed = [event for event in events if event.state.value == "closed"]
    assert {event.event_id for event in events} == {event.event_id for event in closed}
    assert len(closed) == len({event.event_id for event in closed}) >= 2
    assert ear.missing == []
    for event in closed:
        picture = cv2.imdecode(
            np.frombuffer((tmp_path / event.snapshot).read_bytes(), np.uint8), cv2.IMREAD_COLOR
        )
        assert picture.shape == (576, 768, 3)
        assert event.path


def test_stopping_closes_open_events_and_is_quick(tmp_path):
    ear = Ear(tmp_path, until=lambda said: said["type"] == "event")
    took_s = run(ear, lambda _stream: Paced(is_endless=True))
    closed = [said["event"] for said in ear.of("event") if said["event"]["state"] == "closed"]
    assert "agent stopped" in {event["reason"] for event in closed}
    opened = {said["event"]["event_id"] for said in ear.of("event")}
    assert opened == {event["event_id"] for event in closed}
    assert took_s < 3.0


def test_a_refused_model_leaves_motion_and_is_told(tmp_path):
    manifest = tmp_path / "gone.json"
    ear = Ear(tmp_path, until=lambda said: said["type"] == "stats" and said["frames"] > 30)
    run(
        ear,
        lambda _stream: Paced(4.0, is_endless=True),
        detector=DetectorConfig(model=str(manifest)),
    )
    assert ear.said[0]["type"] == "degraded"
    assert str(manifest) in ear.said[0]["reason"]
    assert ear.of("ready") == []
    told = {said["event"]["kind"] for said in ear.of("event")}
    assert told == {"motion"}
    last = ear.of("stats")[-1]
    assert last["inferences"] == 0
    assert last["motion_open"]
    assert last["cpu_ms"]["motion"] > 0


def test_one_broken_camera_leaves_the_other_alone(tmp_path):
    cameras = [plaza("good"), plaza("bad", sub=Kinded("broken", None))]

    def build(camera):
        if camera.sub.kind == "broken":
            return Broken(Unsupported("no video stream; allowed: h264, hevc"))
        return Paced(4.0, is_endless=True)

    ear = Ear(
        tmp_path,
        until=lambda said: (
            said["type"] == "stats" and said["camera"] == "good" and said["frames"] > 30
        ),
    )
    run(ear, build, cameras)
    assert ear.states("good") == ["connecting", "streaming"]
    assert ear.states("bad") == ["connecting", "disabled"]
    detail = next(said for said in ear.of("camera") if said["state"] == "disabled")["detail"]
    assert "no video stream" in detail


def test_without_a_small_stream_the_key_frames_of_main_are_analysed(tmp_path):
    asked = []

    def build(camera):
        asked.append(camera.sub)
        return Paced(speed=10.0)

    ear = Ear(tmp_path, until=lambda said: said.get("state") == "ended")
    run(ear, build, [plaza(sub=None)])
    assert asked == [None]
    deadline = [said["frames"] for said in ear.of("stats")]
    assert max(deadline) <= 20


def test_nobody_listening_ends_the_run(tmp_path):
    class Deaf(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    stop = threading.Event()
    analysis.run(
        [plaza()],
        lambda _stream: Paced(is_endless=True),
        DetectorConfig(model="int8"),
        tmp_path,
        RealClock(),
        Deaf(),
        stop,
    )
    assert stop.is_set()


def reader(build, clock, said, *, pipeline=None, slot=None) -> Reader:
    return Reader(
        build,
        pipeline or Pipeline(plaza(), None, 0.4, clock),
        slot or Slot(threading.Event()),
        lambda state, detail: said.append((state, detail)),
        clock,
        key_frames_only=False,
    )


def test_a_lost_source_is_opened_again_with_back_off():
    clock, said, pauses = SimClock(), [], []
    sources = [Broken(SourceLost(f"try {count}")) for count in range(8)]
    left = list(sources)

    def build():
        pauses.append(clock.mono_ns() / 1e9)
        return left.pop(0) if left else FileSource(PLAZA)

    one = reader(build, clock, said)
    one.run(threading.Event())
    assert [state for state, _ in said] == [
        *(["connecting", "lost"] * 8),
        "connecting",
        "streaming",
        "ended",
    ]
    assert one.is_over
    assert one.frames == 400
    assert all(source.closes == 1 for source in sources)
    gaps = [later - earlier for earlier, later in itertools.pairwise(pauses)]
    assert all(gap <= min(30.0, 2.0**count) for count, gap in enumerate(gaps, 1))
    assert len(set(gaps)) == len(gaps)


def test_a_refused_password_is_not_tried_in_a_row():
    clock, said, tries = SimClock(), [], []

    def build():
        tries.append(clock.mono_ns() / 1e9)
        return (
            FileSource(PLAZA)
            if len(tries) > 2
            else Broken(AuthRefused("rtsp://officer:secret@10.0.0.9/sub: 401"))
        )

    reader(build, clock, said).run(threading.Event())
    assert tries == [0.0, 900.0, 1800.0]
    assert ("auth_failed", "rtsp://10.0.0.9/sub: 401") in said


def test_what_is_no_fault_of_the_source_is_raised():
    one = reader(lambda: Broken(ConfigError("no such driver")), SimClock(), [])
    with pytest.raises(ConfigError):
        one.run(threading.Event())
    assert not one.is_over


def test_a_set_stop_ends_the_back_off():
    clock, stop = RealClock(), threading.Event()
    one = reader(lambda: Broken(AuthRefused("401")), clock, [])
    thread = threading.Thread(target=one.run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(2)
    assert not thread.is_alive()


def test_the_newest_look_wins_and_motion_is_not_forgotten():
    fresh = threading.Event()
    slot = Slot(fresh)
    moving = MotionResult(is_moving=True, area_frac=0.1)
    pictures = list(frames_of(3))
    slot.put(Look(pictures[0], moving))
    slot.put(Look(pictures[1], STILL))
    assert fresh.is_set()
    look = slot.take()
    assert look is not None
    assert (look.frame.index, look.motion) == (2, moving)
    assert slot.take() is None


def frames_of(count: int):
    found = frames(PLAZA)
    for _ in range(count):
        yield next(found)
    found.close()


class Bench:
    """Desks without threads, on a simulated clock, fed by hand."""

    def __init__(self, tmp_path: Path, count: int, eye, **options) -> None:
        self.clock = SimClock()
        self.out = Ear(tmp_path)
        voice = analysis.Voice(self.out, threading.Event())
        self.desks = []
        for index in range(count):
            camera = plaza(f"cam{index}", **options)
            pipeline = Pipeline(camera, eye, 0.4, self.clock)
            slot = Slot(threading.Event())
            one = reader(lambda: FileSource(PLAZA), self.clock, [], pipeline=pipeline, slot=slot)
            self.desks.append(
                analysis.Desk(
                    camera, pipeline, slot, one, analysis.Snapshots(tmp_path), voice, self.clock
                )
            )

    def feed(self, frame) -> None:
        for desk in self.desks:
            desk.reader.last_frame_mono_ns = self.clock.mono_ns()
            motion = desk.pipeline.watch(frame)
            if motion is not None:
                desk.slot.put(Look(frame, motion))


def test_cameras_share_the_detector_fairly(tmp_path):
    """Every detection costs 25 ms: 100 a second are four of them, for four cameras that want 20."""
    bench = Bench(tmp_path, 4, Script(lambda _t: bench.clock.advance(0.025) or ()))
    budget = Budget(100.0)
    for index, frame in enumerate(frames(PLAZA)):
        bench.feed(frame)
        for desk in bench.desks:
            desk.serve(budget)
        bench.clock.advance((index + 1) * 0.1 - bench.clock.mono_ns() / 1e9)
    shares = [desk.pipeline.inferences for desk in bench.desks]
    assert sum(shares) == pytest.approx(160, abs=8)
    assert max(shares) - min(shares) <= 4
    said = [desk.pipeline.costs.detect_ns for desk in bench.desks]
    assert sum(said) == sum(shares) * 25_000_000


def test_a_camera_that_falls_silent_has_its_events_closed(tmp_path):
    bench = Bench(tmp_path, 1, Walker(20.0), events=EventConfig(lost_s=5))
    desk, budget = bench.desks[0], Budget(1000.0)
    for frame in frames_of(120):
        bench.feed(frame)
        bench.clock.advance(0.1)
        desk.serve(budget)
    assert desk.pipeline.open_events == 1
    bench.clock.advance(4.0)
    desk.serve(budget)
    assert desk.pipeline.open_events == 1
    bench.clock.advance(2.0)
    desk.serve(budget)
    assert desk.pipeline.open_events == 0
    last = bench.out.of("event")[-1]["event"]
    assert (last["state"], last["reason"]) == ("closed", "source lost")


def test_a_silent_camera_is_told_as_lost_until_it_is_back(tmp_path):
    health = Kinded("camera_health", camera_health.Config(name="health", lost_s=8))
    bench = Bench(tmp_path, 1, Walker(20.0), events=EventConfig(lost_s=5), rules=(health,))
    desk, budget, pictures = bench.desks[0], Budget(1000.0), iter(frames(PLAZA))
    for frame in itertools.islice(pictures, 30):
        bench.feed(frame)
        bench.clock.advance(0.1)
        desk.serve(budget)
    for _ in range(60):
        bench.clock.advance(0.5)
        desk.serve(budget)
    (opened,) = bench.out.of("event")
    assert (opened["event"]["label"], opened["event"]["state"]) == ("lost", "open")
    bench.feed(next(pictures))
    desk.serve(budget)
    closed = bench.out.of("event")[-1]["event"]
    assert (closed["event_id"], closed["reason"]) == (opened["event"]["event_id"], "back")


def test_a_full_disk_costs_the_snapshot_and_not_the_event(tmp_path):
    (tmp_path / "spool").write_text("a file where the folder should be")
    bench = Bench(tmp_path, 1, Walker(8.0))
    desk, budget = bench.desks[0], Budget(1000.0)
    for frame in frames_of(120):
        bench.feed(frame)
        bench.clock.advance(0.1)
        desk.serve(budget)
    desk.finish("agent stopped")
    said = [item["event"] for item in bench.out.of("event")]
    assert {event["state"] for event in said} == {"open", "closed"}
    assert all(event["snapshot"] is None for event in said)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_reader_that_dies_ends_the_process(tmp_path):
    def build(_stream):
        raise ConfigError("driver is gone")

    with pytest.raises(RuntimeError, match="reader of camera plaza died"):
        run(Ear(tmp_path), build, limit_s=10)


PROGRAM = """
import sys, threading
from pathlib import Path
from agent.core.clock import RealClock
from agent.vision import analysis
from agent.vision.config import DetectorConfig
from agent.vision.relay import Relayed
from drivers import file
from tests.vision.cameras import plaza
clock, stop = RealClock(), threading.Event()
settings = file.Config(Path(sys.argv[2]), is_looped=True, is_realtime=True)
Relayed(sys.stdin.buffer, stop).start()
analysis.run([plaza()], lambda _s: file.build(settings, clock), DetectorConfig(),
             Path(sys.argv[1]), clock, sys.stdout, stop)
for line in open("/proc/self/status"):
    if line.startswith("VmHWM"):
        print('{"type":"memory","kib":%s}' % line.split()[1])
"""


def test_the_process_ends_with_its_parent_and_stays_small(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(PLAZA)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    heard = []
    with child:
        for text in child.stdout:
            heard.append(json.loads(text))
            if heard[-1]["type"] == "stats" and heard[-1]["frames"] > 20:
                child.stdin.close()
                break
        heard += [json.loads(text) for text in child.stdout]
        child.stdin = None
        assert child.wait(5) == 0
    assert heard[0]["type"] == "ready"
    closed = [item["event"] for item in heard if item["type"] == "event"]
    assert closed[-1]["state"] == "closed"
    assert heard[-1]["kib"] / 1024 < 135
