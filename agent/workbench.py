"""A technician's tools: choosing, measuring and trying, without the agent running.

Each command imports what it needs inside, as in `app`.
"""

import getpass
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import app
from agent.core.clock import NS_PER_MS, RealClock
from agent.core.errors import ConfigError
from agent.core.files import write_atomic
from agent.roles.config import CameraRole
from agent.vision.config import CameraConfig

if TYPE_CHECKING:
    from agent.vision.replay import Difference
    from agent.vision.review import Totals
    from agent.vision.tune import Table

MAX_WHO_CHARS = 64
PAGE, EVENTS = "index.html", "events.jsonl"
FOR_EVER_DAYS, NO_LIMIT_MB = 36_500, 1_000_000  # of what a person keeps by hand
HOURS_OF_A_DAY = 24.0
LEVELS = ("present", "1", "2", "3", "4", "5")
EDGE = 0.001  # of the height


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a calibration came to."""

    points: Sequence[Mapping[str, Any]]  # rows of a table
    facts: Mapping[str, str]
    path: Path


def calibrate(options: Any) -> Calibrated:
    """Fit a camera's ground, write its file, draw its grid.

    Args:
        options: snapshot, points, rectangle, sides, straight, check, grid, out, by as the command
            line has them.

    Raises:
        ConfigError: the points cannot be read or make no plane; the files stay as they were.
    """
    from agent.vision import calibrate as fitting
    from agent.vision import calibration, grid
    from agent.vision.survey import Notes, length_check

    size = grid.picture_size(options.snapshot)
    notes = Notes.empty()
    if options.rectangle:
        notes.take_rectangle(options.rectangle, options.sides)
    notes.take_points(options.points)
    notes.take_straights(options.straight)
    known = length_check(options.check) if options.check else None
    survey = notes.survey(*size)
    fit = fitting.fit(survey)
    found = calibration.Calibration(
        calibration_id=_calibration_id(options.out),
        snapshot_sha256=hashlib.sha256(options.snapshot.read_bytes()).hexdigest(),
        width_px=size[0],
        height_px=size[1],
        marks=fit.marks(survey),
        straights=survey.straights,
        matrix=fit.matrix,
        k1=fit.k1,
        residual_px=fit.residual_px,
        residual_m=fit.residual_m,
        scale_sd_frac=fit.scale_sd_frac,
        foot_sd_px=fitting.FOOT_SD_FRAC * size[0],
        is_verified=fit.is_verified,
        made_by=(options.by or getpass.getuser())[:MAX_WHO_CHARS],
        made_utc_ms=RealClock().utc_ns() // NS_PER_MS,
    )
    facts = _facts(found, fitting.reach(found.ground))
    if known is not None:
        first, last, length_m = known
        ends = (notes.scale(*size, first), notes.scale(*size, last))
        facts["check"] = _checked(fitting.distance_m(found.ground, *ends), length_m)
    calibration.write(found, options.out)
    if options.grid:
        step_m = grid.draw(options.snapshot, found, options.grid)
        facts["grid"] = f"{options.grid}, a line every {step_m} m, thick every {5 * step_m} m"
    return Calibrated([_point(mark, found) for mark in found.marks], facts, options.out)


Watch = Callable[[Sequence[Any]], Iterable[Any]]
"""Passes things on and shows how far it is."""


def is_track_log(name: str) -> bool:
    """Whether a name is that of a track log."""
    return name.endswith((".jsonl.zst", ".jsonl"))


def analyse_video(options: Any) -> Iterator[Mapping[str, Any]]:
    """Give the events that a camera's rules make of a video or stream.

    Args:
        options: video, config, set, camera as the command line has them.
    """
    from agent.vision import detect as detector
    from agent.vision import offline

    settings = app.load_camera(options.config, options.set, check_files=False)
    chosen = _camera(settings, options.camera)
    clock = RealClock()
    eye = detector.load(settings.detector, clock)
    source = app.video_source(options.video[0], clock)
    return offline.analyse_lines(source, chosen, eye, settings.detector.min_score, clock)


def review(options: Any, watch: Watch) -> "Totals":
    """Go through a folder of recordings; writes `index.html`, `events.jsonl` and track logs.

    Args:
        options: video, config, set, camera, html, every as the command line has them.
        watch: shows how far it is.

    Raises:
        ConfigError: there is no recording in the folder, or the page cannot be written.
    """
    from agent.vision import detect as detector
    from agent.vision import review as reviewing
    from agent.vision import tracklog
    from agent.vision.gallery import Gallery

    folder = Path(options.video[0])
    settings = app.load_camera(options.config, options.set, check_files=False)
    camera = _camera(settings, options.camera)
    groups = reviewing.groups(folder)
    if not groups:
        allowed = ", ".join(sorted(reviewing.SUFFIXES))
        raise ConfigError(f"{folder}: no recording in it; allowed: files of {allowed}")
    clock = RealClock()
    eye = detector.load(settings.detector, clock)
    study = reviewing.Review(
        camera,
        eye,
        settings.detector.min_score,
        clock,
        lambda path: app.video_source(str(path), clock),
        options.every,
    )
    gallery = Gallery(camera, f"{folder} under {options.config}")
    keeper = tracklog.Keeper(options.html / tracklog.FOLDER, FOR_EVER_DAYS, NO_LIMIT_MB)
    try:
        _begin_page(options.html, tracklog.paths(keeper.folder, camera.id))
        files = iter(watch([recording for group in groups for recording in group]))
        with (options.html / EVENTS).open("w") as lines:
            for group in groups:
                tracks = tracklog.Writer(keeper, tracklog.Session(camera.id, eye.model_id))
                for shot in study.shots(group[0], islice(files, len(group)), tracks):
                    gallery.add(shot, study.totals.size_px)
                    lines.write(reviewing.line(shot))
                tracks.flush()
        page = gallery.page(study.scene, study.totals)
        write_atomic(options.html / PAGE, page.encode())
    except OSError as error:
        reason = f"{options.html}: {error.strerror}; allowed: a folder to write to"
        raise ConfigError(reason) from error
    return study.totals


def _begin_page(out: Path, logs: Iterable[Path]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for path in logs:  # of an earlier review into the same folder
        path.unlink()


def analyse_logs(options: Any, watch: Watch) -> Iterator[Mapping[str, Any]]:
    """Give the events that a camera's rules make of track logs.

    Raises:
        ConfigError: the logs cannot be read, or are of several cameras.
    """
    from agent.vision import calibration, replay, tracklog

    files, logged = _logs(options.video)
    settings = app.load_camera(options.config, options.set, check_files=False)
    camera = _camera(settings, options.camera, logged)
    again = replay.Replay(camera, calibration.of(camera), RealClock())
    for event in again.events(tracklog.read(watch(files))):
        yield replay.event_line(event)


def compare_logs(options: Any, watch: Watch) -> "Difference":
    """Give what another configuration, `against`, makes of the same logs; as `analyse_logs`."""
    from agent.vision import calibration, replay, tracklog

    files, logged = _logs(options.video)
    said = []
    for file in (options.config, options.against):
        settings = app.load_camera(file, options.set, check_files=False)
        camera = _camera(settings, options.camera, logged)
        again = replay.Replay(camera, calibration.of(camera), RealClock())
        said.append(list(again.events(tracklog.read(watch(files)))))
    return replay.compare(*said)


def tune(options: Any, watch: Watch) -> "Table":
    """Count alarms at each sensitivity on a camera's track logs.

    Args:
        options: config, set, camera, log, days as the command line has them.
        watch: shows how far it is.

    Raises:
        ConfigError: there is no log.
    """
    from agent.vision import calibration, tracklog
    from agent.vision import tune as tuning

    settings = app.load_camera(options.config, options.set, check_files=False)
    if options.log:
        files, logged = _logs(list(map(str, options.log)))
        camera = _camera(settings, options.camera, logged)
    else:
        camera = _camera(settings, options.camera)
        folder = settings.state_dir / tracklog.FOLDER
        files = tracklog.paths(folder, camera.id)[-options.days :]
        if not files:
            raise ConfigError(
                f"tune: no track log of {camera.id} in {folder}; allowed: let the agent run for a"
                " day with detector.tracklog_days above 0"
                f" (it is {settings.detector.tracklog_days}), or --log FILES, which"
                " outpost analyse FOLDER --html DIR makes of recordings, in DIR/tracks"
            )
    items = tracklog.read(watch(files))
    return tuning.tune(camera, calibration.of(camera), items, RealClock())


def derive(options: Any) -> tuple[Path, str]:
    """Make a masked copy of a sealed clip.

    Args:
        options: clip, config, set, out, reason as the command line has them.

    Returns:
        The copy's folder, and the file of the public key that it verifies with.

    Raises:
        ConfigError: no masks, no key, or another camera.
        IntegrityError: the original is not what was sealed.
    """
    from agent import __version__
    from agent.evidence import custody
    from agent.evidence.keys import DeviceKey
    from agent.vision import derive as copying

    settings = app.load_camera(options.config, options.set, check_files=False)
    key_path = settings.state_dir / app.KEY
    if not key_path.exists():
        raise ConfigError(f"{key_path}: no key; allowed: on the device that sealed the clip")
    key = DeviceKey.load_or_create(key_path)
    document, _ = copying.manifest_of(options.clip, key.public)
    clock, database = RealClock(), settings.state_dir / app.DATABASE

    def note(parent: str, copy: str, reason: str) -> custody.Head:
        detail = {"copy": copy, "reason": reason}
        return custody.note(database, clock, "clip.derived", parent, detail)

    order = copying.Order(
        camera=_camera(settings, document["camera"]),
        key=key,
        version=__version__,
        reason=options.reason or copying.REASON,
        clock=clock,
        note=note,
    )
    return copying.derive(options.clip, options.out, order), str(key_path.with_suffix(".pub"))


def _logs(names: Sequence[str]) -> tuple[list[Path], str]:
    """Give the files, oldest first, and the one camera that they are of."""
    from agent.vision import tracklog

    files = sorted(map(Path, names), key=lambda path: path.name)
    cameras = set()
    for path in files:
        try:
            cameras.add(tracklog.camera_of(path))
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; allowed: a track log") from error
    if len(cameras) != 1 or "" in cameras:
        told = ", ".join(sorted(cameras - {""})) or "none"
        raise ConfigError(f"track logs of cameras: {told}; allowed: the logs of one camera")
    return files, cameras.pop()


def _camera(settings: CameraRole, name: str, logged: str = "") -> CameraConfig:
    """Find a camera by its name; without one the log's, else the first."""
    known = {item.id: item for item in settings.cameras}
    chosen = known.get(name) if name else known.get(logged, settings.cameras[0])
    if chosen is None:
        raise ConfigError(f"no camera {name!r}; allowed: {', '.join(known)}")
    return chosen


def _facts(found: Any, reach: tuple[float, float] | None) -> dict[str, str]:
    facts = {
        "residual": f"{found.residual_px:.2f} px, {found.residual_m:.3f} m (root mean square)",
        "verified": "yes"
        if found.is_verified
        else f"NO: {len(found.marks)} points always fit; six or more show the error",
        "lengths": f"known to {2 * found.scale_sd_frac:.1%} (95 %) between the points",
        "told": _told(reach),
    }
    if found.k1:
        facts["lens"] = f"k1 {found.k1:+.4f}"
    return facts


def _told(reach: tuple[float, float] | None) -> str:
    if reach is None:
        return "nowhere in the middle of the picture: a pixel is more than 0.5 m"
    height, away_m = reach
    end = f"y = {height:.3f}, where a pixel is 0.5 m" if height > EDGE else "the upper edge"
    return f"up to {end}: {away_m:.0f} m beyond the lower edge, in the middle of the picture"


def _checked(measured_m: float | None, length_m: float) -> str:
    if measured_m is None:
        return "an end lies above the horizon"
    off_m = measured_m - length_m
    return f"{length_m:g} m measures {measured_m:.2f} m: {off_m:+.2f} m, {off_m / length_m:+.1%}"


def _point(mark: Any, found: Any) -> dict[str, Any]:
    return {
        "point": mark.name,
        "picture px": f"{mark.x * found.width_px:.1f}, {mark.y * found.height_px:.1f}",
        "ground m": f"{mark.x_m:g}, {mark.y_m:g}",
        "off px": f"{mark.residual_px:.2f}",
        "off m": f"{mark.residual_m:.3f}",
    }


def _calibration_id(out: Path) -> str:
    name = out.stem
    is_plain = name.isascii() and name[:1].isalnum() and name == name.lower()
    if not is_plain or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        raise ConfigError(f"--out {out}: allowed: a file name of a-z 0-9 . _ -, as north.json")
    return name
