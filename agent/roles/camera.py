"""The camera role: from the camera's packets to the centre's receipt.

camera main ─► Recorder ─► Ring, segments ──────┐
                                                ├─► ClipMaker ─► Transfers ══ MQTT ══► receipt
camera sub ─► analysis process ─► Intake ───────┤
                                                └─► Outbox ────► Uplink ════ MQTT ══► receipt
RecordingLoop tidies the segments, Keeper the rest of the disk; Telemetry and StatusFile tell how
all of it is.
"""

from collections.abc import Mapping

from agent.core.wire import Topics
from agent.device import homeassistant, mended
from agent.device.requests import Requests
from agent.device.status import StatusFile
from agent.device.telemetry import Facts, Health, Telemetry
from agent.roles import keepsakes
from agent.roles import spine as spines
from agent.roles.camerakit import CameraKit
from agent.roles.config import CameraRole
from agent.roles.spine import Spine
from agent.supervisor import ProcessWorker, Supervisor, Worker
from agent.vision import relay as relays
from agent.vision.adopt import adopt
from agent.vision.aside import Aside
from agent.vision.clip import ClipMaker, Custodian
from agent.vision.disks import Disks
from agent.vision.hold import Keepsakes
from agent.vision.intake import Admission, Intake
from agent.vision.keeper import Box, Keeper
from agent.vision.loop import RecordingLoop
from agent.vision.recorder import Recorder
from agent.vision.recovery import recover
from agent.vision.relay import Relay
from agent.vision.retell import retell
from agent.vision.ring import Ring
from agent.vision.segment import Place, turn_of

BYTES_PER_MB = 1_000_000


def build(kit: CameraKit) -> Supervisor:
    """Wire the role: settles what a crash left, starts nothing."""
    config, clock, store = kit.config, kit.clock, kit.store
    note = kit.note_custody
    names = [camera.id for camera in config.cameras]
    kept = Keepsakes(store, clock, note, names)
    spine = spines.wire(
        kit,
        lambda numbers: kit.birth(names, intake.model, numbers),
        keepsakes.centre_words(kept),
        retell,
    )
    outbox = spine.outbox
    disks = Disks(config.state_dir, store, clock, config.device, config.recording.folders)
    keeper = Keeper(
        Box(config.state_dir, store, disks, clock, note, outbox.put_in),
        config.retention,
        config.recording,
        names,
    )
    intake = Intake(store, outbox, clock, Admission(keeper.refusal, note))
    recover(store, disks, note)
    adopt(_custodian(kit, spine), is_thorough=mended.is_untold(store))
    intake.close_left_open("agent restarted")
    mended.tell(store, outbox.put_in)
    homeassistant.announce(store, outbox, _entities(config, outbox.topics))
    kept.restore()

    rings = {name: _ring(config) for name in names}
    recorders = {
        name: _recorder(kit, Place(name, store, disks, turn_of(number)), ring)
        for number, (name, ring) in enumerate(rings.items())
    }
    relay = Relay(
        {
            camera.id: relays.Camera(rings[camera.id], recorders[camera.id].info)
            for camera in config.cameras
            if camera.sub is None
        }
    )
    facts = Facts(
        folder=config.state_dir,
        queues=outbox.depths,
        files_waiting=lambda: spine.ledger.backlog()[0],
        cameras={name: recorder.health for name, recorder in recorders.items()},
        counters=intake.health,
        workers=lambda: supervisor.health(),  # noqa: PLW0108 - it is made further down
        last_receipt_utc_ns=spine.latest_receipt_utc_ns,
        custody=kit.signed_head,
        parts=lambda: {**disks.health(), "detector": intake.detector, "storage": keeper.health()},
        storage=keeper.figures,
        schedule=lambda: spine.meter.figures() if spine.meter.is_set else {},
    )
    loop = RecordingLoop(store, disks, clock, config.recording, note, keeper.allowance)
    workers: list[Worker] = [
        *recorders.values(),
        ProcessWorker("analysis", kit.analysis_argv, intake.line, feed=relay),
        ClipMaker(_custodian(kit, spine), rings, outbox.put_in),
        loop,
        keeper,
        *spine.workers(),
        Requests(config.state_dir, {**keepsakes.box_words(kept), **spine.box_words()}, clock),
        *kit.instruments,
        Telemetry(outbox.put, facts, clock, config.telemetry),
        StatusFile(
            config.state_dir,
            lambda: {
                **_status(kit, facts, intake, spine, loop.aside),
                "schedule": spine.meter.words(),
                "centre": spine.centre(),
            },
            clock,
        ),
    ]
    workers += spine.scrape(facts)
    supervisor = Supervisor(workers, clock, check=lambda: store.write(lambda _: None))
    return supervisor


def _ring(config: CameraRole) -> Ring:
    return Ring(config.recording.ring_s, config.recording.ring_max_mb * BYTES_PER_MB)


def _recorder(kit: CameraKit, place: Place, ring: Ring) -> Recorder:
    source = kit.sources[place.camera]
    return Recorder(place, source, ring, kit.clock, kit.config.recording, kit.boot)


def _custodian(kit: CameraKit, spine: Spine) -> Custodian:
    config, times = kit.config, spine.times
    return Custodian(
        config.device, config.site, config.state_dir, kit.store, kit.key, kit.clock, times.state
    )


def _entities(config: CameraRole, topics: Topics) -> Mapping[str, Mapping[str, object]]:
    cameras = tuple(
        homeassistant.Described(camera.id, tuple(rule.settings.name for rule in camera.rules))
        for camera in config.cameras
    )
    return homeassistant.entities(config.homeassistant, topics, cameras, config.telemetry.beat_s)


def _status(
    kit: CameraKit, facts: Facts, intake: Intake, spine: Spine, aside: Aside
) -> Mapping[str, object]:
    cameras = []
    for name, look in facts.cameras.items():
        camera, seen = look(), intake.health(name)
        cameras.append(
            {
                "id": name,
                "recording": camera.state,
                "analysis": seen.state,
                "detail": camera.detail or seen.detail,
                "lag_ms": camera.lag_ms,
                "packets": camera.packets,
                "dropped": camera.dropped,
                "frames": seen.frames,
                "inferences": seen.inferences,
                "tracks": seen.tracks,
                "blind": list(seen.blind),
            }
        )
    return {
        "device": kit.config.device,
        "site": kit.config.site,
        "link": spine.uplink.status().link.state,
        "detector": _said(intake.detector),
        "model": intake.model,
        "cameras": cameras,
        "disks": {
            name: f"{health.state} ({health.detail})"
            for name, health in facts.parts().items()
            if name not in ("detector", "storage")
        },
        "storage": _said(facts.parts()["storage"]),
        "quarantine": {"files": aside.files, "size_bytes": aside.size_bytes},
        "workers": {name: health.state for name, health in facts.workers().items()},
    }


def _said(health: Health) -> str:
    return f"{health.state}: {health.detail}" if health.detail else health.state
