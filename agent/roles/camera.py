"""The camera role: from the camera's packets to the centre's receipt.

camera main ─► Recorder ─► Ring, segments ──────┐
                                                ├─► ClipMaker ─► Transfers ══ MQTT ══► receipt
camera sub ─► analysis process ─► Intake ───────┤
                                                └─► Outbox ────► Uplink ════ MQTT ══► receipt
RecordingLoop tidies the segments, Keeper the rest of the disk; Telemetry and StatusFile tell how
all of it is.
"""

from collections.abc import Mapping

from agent.core.checkup import Checkup
from agent.core.wire import Topics
from agent.delivery.centrestore import CentreStore
from agent.delivery.meter import Meter
from agent.delivery.outbox import Outbox
from agent.delivery.transfer import Ledger, Transfers, file_sessions
from agent.delivery.uplink import Uplink, live_sessions
from agent.device import homeassistant, mended
from agent.device.commands import Commands
from agent.device.metrics import Figures, exposition
from agent.device.quarantine import Quarantine
from agent.device.replay import Replay
from agent.device.requests import Requests
from agent.device.scrape import Scrape
from agent.device.status import StatusFile
from agent.device.telemetry import Facts, Health, Telemetry
from agent.device.timekeeper import Sources, Timekeeper
from agent.device.wants import Wants
from agent.roles import centreword, fileorders, keepsakes
from agent.roles.centreword import CentreWord
from agent.roles.config import CameraRole
from agent.roles.kit import Kit
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


def build(kit: Kit) -> Supervisor:
    """Wire the role: settles what a crash left, starts nothing."""
    config, clock, store = kit.config, kit.clock, kit.store
    note = kit.note_custody
    topics = Topics(config.site, config.device)
    times = Timekeeper(
        store,
        lambda connection, message: outbox.put_in(connection, message),  # noqa: PLW0108 - made below
        clock,
        kit.boot,
        Sources(fix=kit.fix),
        config.time.position_s,
    )
    outbox = Outbox(store, topics, clock, kit.boot, times.state)
    numbers = outbox.earlier()
    disks = Disks(config.state_dir, store, clock, config.device, config.recording.folders)
    keeper = Keeper(
        Box(config.state_dir, store, disks, clock, note, outbox.put_in),
        config.retention,
        config.recording,
        [camera.id for camera in config.cameras],
    )
    intake = Intake(store, outbox, clock, Admission(keeper.refusal, note))
    recover(store, disks, note)
    adopt(_custodian(kit, times), is_thorough=mended.is_untold(store))
    intake.close_left_open("agent restarted")
    mended.tell(store, outbox.put_in)

    homeassistant.announce(store, outbox, _entities(config, topics))

    rings = {camera.id: _ring(config) for camera in config.cameras}
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
    word = CentreWord(kit.centre_keys, config.device)
    uplink = Uplink(
        live_sessions(config.broker, config.delivery, topics, kit.boot, clock),
        outbox,
        word.rows,
        lambda: kit.birth([camera.id for camera in config.cameras], intake.model, numbers),
        clock,
        config.delivery,
    )
    kept = Keepsakes(store, clock, note, [camera.id for camera in config.cameras])
    kept.restore()
    commands = Commands(
        store,
        outbox,
        word.command,
        {
            "replay": Replay(store, config.device, kit.key, clock, uplink.resend),
            **keepsakes.centre_words(kept),
        },
        clock,
    )
    quarantine = Quarantine(store, outbox, note, uplink.retry)
    uplink.listen(commands.topic, commands.hear)
    ledger = Ledger(store, config.state_dir, clock, note, outbox.put_in)
    transfers = Transfers(
        file_sessions(config.broker, topics, clock),
        ledger,
        topics,
        word.file,
        clock,
        config.delivery,
    )
    meter = _metered(kit, times, uplink, transfers)
    facts = Facts(
        folder=config.state_dir,
        queues=outbox.depths,
        files_waiting=lambda: ledger.backlog()[0],
        cameras={name: recorder.health for name, recorder in recorders.items()},
        counters=intake.health,
        workers=lambda: supervisor.health(),  # noqa: PLW0108 - it is made further down
        last_receipt_utc_ns=lambda: _latest(uplink, transfers),
        custody=kit.signed_head,
        parts=lambda: {**disks.health(), "detector": intake.detector, "storage": keeper.health()},
        storage=keeper.figures,
        schedule=lambda: meter.figures() if meter.is_set else {},
    )
    loop = RecordingLoop(store, disks, clock, config.recording, note, keeper.allowance)
    workers: list[Worker] = [
        *recorders.values(),
        ProcessWorker("analysis", kit.analysis_argv, intake.line, feed=relay),
        ClipMaker(_custodian(kit, times), rings, outbox.put_in),
        loop,
        keeper,
        uplink,
        transfers,
        commands,
        Checkup(store, clock),
        _wants(kit, word, outbox, uplink),
        Requests(
            config.state_dir,
            {**keepsakes.box_words(kept), **fileorders.words(ledger), **quarantine.words},
            clock,
        ),
        times,
        *kit.instruments,
        Telemetry(outbox.put, facts, clock, config.telemetry),
        StatusFile(
            config.state_dir,
            lambda: {
                **_status(kit, facts, intake, uplink, loop.aside),
                "schedule": meter.words(),
                "centre": _centre(kit, transfers),
            },
            clock,
        ),
    ]
    if config.metrics.enabled:
        figures = _figures(kit, facts, uplink, transfers, ledger, times)
        workers.append(Scrape(config.metrics, lambda: exposition(figures), clock))
    supervisor = Supervisor(workers, clock, check=lambda: store.write(lambda _: None))
    return supervisor


def _ring(config: CameraRole) -> Ring:
    return Ring(config.recording.ring_s, config.recording.ring_max_mb * BYTES_PER_MB)


def _metered(kit: Kit, times: Timekeeper, uplink: Uplink, transfers: Transfers) -> Meter:
    meter = Meter(kit.config.uplink.schedule, kit.clock, kit.store, times.state)
    uplink.obey(meter)
    transfers.obey(meter)
    return meter


def _recorder(kit: Kit, place: Place, ring: Ring) -> Recorder:
    source = kit.sources[place.camera]
    return Recorder(place, source, ring, kit.clock, kit.config.recording, kit.boot)


def _custodian(kit: Kit, times: Timekeeper) -> Custodian:
    config = kit.config
    return Custodian(
        config.device, config.site, config.state_dir, kit.store, kit.key, kit.clock, times.state
    )


def _wants(kit: Kit, word: CentreWord, outbox: Outbox, uplink: Uplink) -> Wants:
    """Give the worker that takes in what the centre has retained; the live link hears it."""
    store = CentreStore(
        kit.store, kit.config.state_dir, kit.clock, kit.note_custody, outbox.put_in, retell
    )
    words = centreword.wants(kit.centre_keys, word, store)
    wants = Wants(outbox.topics, words, kit.clock)
    uplink.listen(wants.topic, wants.hear)
    return wants


def _entities(config: CameraRole, topics: Topics) -> Mapping[str, Mapping[str, object]]:
    cameras = tuple(
        homeassistant.Described(camera.id, tuple(rule.settings.name for rule in camera.rules))
        for camera in config.cameras
    )
    return homeassistant.entities(config.homeassistant, topics, cameras, config.telemetry.beat_s)


def _figures(
    kit: Kit,
    facts: Facts,
    uplink: Uplink,
    transfers: Transfers,
    ledger: Ledger,
    times: Timekeeper,
) -> Figures:
    config = kit.config
    return Figures(
        site=config.site,
        device=config.device,
        role=config.role,
        facts=facts,
        uplink=uplink.status,
        transfers=transfers.status,
        backlog=ledger.backlog,
        clock=times.state,
    )


def _status(
    kit: Kit, facts: Facts, intake: Intake, uplink: Uplink, aside: Aside
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
        "link": uplink.status().link.state,
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


def _centre(kit: Kit, transfers: Transfers) -> str:
    """Say which key the centre signs with, and whether it takes files."""
    is_full = transfers.status().is_centre_full
    return f"{'full: files wait; ' if is_full else ''}signs as {kit.centre_keys.current.keyid}"


def _said(health: Health) -> str:
    return f"{health.state}: {health.detail}" if health.detail else health.state


def _latest(uplink: Uplink, transfers: Transfers) -> int | None:
    times = (uplink.status().last_receipt_utc_ns, transfers.status().last_receipt_utc_ns)
    return max((time for time in times if time is not None), default=None)
