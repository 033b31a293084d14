"""The dock role: from a body camera in its slot to the centre's receipt, and only then the wipe.

slots ─► SlotWorker (one a slot) ─► Intake: copy + hash, seal ─► Transfers ══ MQTT ══► receipt
             │                                                        Uplink ══ MQTT ══► receipt
             └─► Wiper: only what the centre has signed for
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from agent.core import log, wire
from agent.core.errors import IntegrityError, ReceiptInvalid
from agent.delivery.ledger import Tell
from agent.device import mended
from agent.device.requests import Requests
from agent.device.status import StatusFile
from agent.device.telemetry import Counters, Facts, Health, Telemetry
from agent.docking import inventory, view
from agent.docking.bench import Bench
from agent.docking.footage import Footage, FootageRows
from agent.docking.holds import Holds
from agent.docking.intake import Custodian, Intake
from agent.docking.keeper import Keeper
from agent.docking.officers import Officers
from agent.docking.reporter import Reporter
from agent.docking.rescuer import Rescuer
from agent.docking.secondcopy import SecondCopy
from agent.docking.slot import SlotWorker
from agent.docking.slotrows import SlotRows
from agent.docking.states import Word
from agent.docking.tags import Tags
from agent.docking.wipe import Checks, Wiper
from agent.evidence import receipt
from agent.roles import dockwords
from agent.roles import spine as spines
from agent.roles.kit import DockKit
from agent.roles.spine import Spine
from agent.supervisor import Supervisor, Worker

NO_CLOCK = "none"

_log = log.get(__name__)


def build(kit: DockKit) -> Supervisor:
    """Wire the role; starts nothing."""
    config, clock, store = kit.config, kit.clock, kit.store
    holds = Holds(store, clock, kit.note_custody)
    spine = spines.wire(
        kit,
        lambda numbers: kit.birth([], "", numbers),
        dockwords.centre_words(holds),
        _tell_nothing,
    )
    mended.tell(store, spine.outbox.put_in)
    slots, bench = _slots(kit, spine.times.state)
    custodian = _custodian(kit, spine.times.state)
    rescuer = Rescuer(
        custodian, SlotRows(store, clock), FootageRows(store, clock, kit.note_custody)
    )
    facts = Facts(
        folder=config.state_dir,
        queues=spine.outbox.depths,
        files_waiting=lambda: spine.ledger.backlog()[0],
        cameras={},
        counters=_no_counters,
        workers=lambda: supervisor.health(),  # noqa: PLW0108 - it is made further down
        last_receipt_utc_ns=spine.latest_receipt_utc_ns,
        custody=kit.signed_head,
        schedule=lambda: spine.meter.figures() if spine.meter.is_set else {},
    )
    keeper = Keeper(config.dock.keep, config.state_dir, store, clock, kit.note_custody)
    if kit.badges is not None:
        kit.badges.listen(partial(_badge, kit, bench))
    reporter = Reporter(
        config.dock, config.state_dir, store, clock, bench.is_clock_good, spine.outbox.put_in
    )
    words = {
        **dockwords.box_words(holds, _second_copy(kit)),
        **dockwords.tag_words(Tags(store, kit.note_custody, spine.outbox.put_in)),
        **spine.box_words(),
    }
    workers: list[Worker] = [
        *slots,
        *([kit.badges] if kit.badges is not None else []),
        reporter,
        keeper,
        *([rescuer] if config.dock.copy.rescue else []),
        *spine.workers(),
        Requests(config.state_dir, words, clock),
        *kit.instruments,
        Telemetry(spine.outbox.put, facts, clock, config.telemetry),
        StatusFile(
            config.state_dir,
            lambda: {**_status(kit, spine, facts, bench), "storage": keeper.figures()},
            clock,
        ),
        *spine.scrape(facts),
    ]
    supervisor = Supervisor(workers, clock, check=lambda: store.write(lambda _: None))
    return supervisor


def slot_workers(
    kit: DockKit, clock_state: Callable[[], Mapping[str, object]]
) -> Sequence[SlotWorker]:
    """Give a worker for each slot.

    Args:
        kit: configuration, hardware, store, keys and clock.
        clock_state: how right our clock is: one that is not sets no other.
    """
    return _slots(kit, clock_state)[0]


def _slots(
    kit: DockKit, clock_state: Callable[[], Mapping[str, object]]
) -> tuple[Sequence[SlotWorker], Bench]:
    config, clock, store = kit.config, kit.clock, kit.store
    intake = Intake(_custodian(kit, clock_state), config.dock.copy)
    footage = FootageRows(store, clock, kit.note_custody)
    bench = Bench(
        dock=kit.dock,
        rows=SlotRows(store, clock),
        footage=footage,
        officers=Officers(config.dock, store, clock, kit.note_custody),
        ingest=intake,
        clock=clock,
        config=config.dock,
        note=partial(_note, kit),
        is_clock_good=lambda: clock_state()["source"] != NO_CLOCK,
    )
    checks = _checks(kit, intake, bench)
    awaits = config.dock.copy.rescue
    wiper = Wiper(config.dock.wipe, footage, checks, clock, awaits_rescue=awaits)
    return [SlotWorker(name, bench, wiper) for name in kit.dock.slots], bench


def _custodian(kit: DockKit, clock_state: Callable[[], Mapping[str, object]]) -> Custodian:
    config = kit.config
    return Custodian(
        config.device, config.site, config.state_dir, kit.store, kit.key, kit.clock, clock_state
    )


def _note(kit: DockKit, kind: str, subject: str, detail: Mapping[str, object]) -> object:
    return kit.store.write(lambda connection: kit.note_custody(connection, kind, subject, detail))


def _badge(kit: DockKit, bench: Bench, badge: str) -> None:
    """Call the holder of a badge to a camera that may be taken."""
    officer = bench.officers.holder(badge)
    if not officer:
        _log.warning("a badge that is nobody's")
        return
    slots = view.slots(kit.store, kit.dock.slots, kit.config.dock, _live(kit, bench))
    ready = {
        item.slot: -1 if item.battery_percent is None else item.battery_percent
        for item in slots
        if item.word in (Word.READY, Word.TAKE)  # who comes twice is called to the same one
    }
    slot = bench.officers.call(officer, ready)
    _note(kit, "badge.read", officer, {"slot": slot, "ready": sorted(ready)})
    _log.info("badge", slot=slot or "none is ready")


def _live(kit: DockKit, bench: Bench) -> view.Live:
    return view.Live(kit.clock, bench.officers.called, bench.paces)


def _tell_nothing(_connection: sqlite3.Connection, _tell: Tell) -> int:
    """A dock has no events of its own: its files and lists are offered again by their transfers."""
    return 0


def _no_counters(camera: str) -> Counters:
    raise KeyError(camera)


def _checks(kit: DockKit, intake: Intake, bench: Bench) -> Checks:
    is_full = kit.config.dock.wipe.compare == "full"
    return Checks(
        receipts=lambda item: _check_receipts(kit, bench.footage, item),
        sealed=lambda item, _tick: intake.check_sealed(item),
        compare=lambda storage, item, tick: intake.compare(storage, item, tick, is_full=is_full),
        is_held=lambda item: _is_held(kit, item),
        second=_second_copy(kit),
        free_percent=lambda slot: bench.paces[slot].free_percent if slot in bench.paces else None,
        remove=lambda storage, name: inventory.remove(storage.root, name),
    )


def _check_receipts(kit: DockKit, footage: FootageRows, item: Footage) -> None:
    """Check once more, by signature, that the centre has a file's very bytes, often enough."""
    transfers = footage.receipts(item.evidence_id)
    if not any(found["sha256"] == item.sha256 for found in transfers):
        raise ReceiptInvalid(f"footage {item.id}: no transfer of sha256 {item.sha256}")
    for found in transfers:
        _check_receipt(kit, found)


def _check_receipt(kit: DockKit, found: Mapping[str, object]) -> None:
    if found["state"] != "receipted" or not found["receipt"]:
        raise ReceiptInvalid(f"file {found['fid']}: no receipt")
    document = wire.decode("file_receipt", str(found["receipt"]).encode())
    signer = next((key for key in kit.centre_keys.all if key.keyid == document["keyid"]), None)
    if signer is None:
        raise ReceiptInvalid(f"receipt: made by {document['keyid']}, which is not pinned")
    expected = {name: found[name] for name in ("fid", "sha256", "size_bytes")}
    receipt.check_file_receipt(document, signer, {**expected, "device": kit.config.device})
    least = kit.config.dock.wipe.min_copies
    if document["copies"] < least:
        raise IntegrityError(
            f"file {found['fid']}: the centre has {document['copies']} copies;"
            f" dock.wipe.min_copies: {least}"
        )


def _second_copy(kit: DockKit) -> SecondCopy:
    config = kit.config
    return SecondCopy(config.dock.wipe, config.state_dir, kit.store, kit.clock, kit.note_custody)


def _is_held(kit: DockKit, item: Footage) -> bool:
    with kit.store.reading() as connection:
        found = connection.execute(
            "SELECT 1 FROM hold WHERE camera = ? UNION ALL SELECT 1 FROM pin WHERE clip_id = ?",
            (item.camera, item.evidence_id),
        ).fetchone()
    return found is not None


def _status(kit: DockKit, spine: Spine, facts: Facts, bench: Bench) -> Mapping[str, object]:
    live = _live(kit, bench)
    slots = view.slots(kit.store, kit.dock.slots, kit.config.dock, live)
    return {
        "device": kit.config.device,
        "site": kit.config.site,
        "role": kit.config.role,
        "link": spine.uplink.status().link.state,
        "slots": [slot.document() for slot in slots],
        "workers": _states(facts.workers()),
        "schedule": spine.meter.words(),
        "centre": spine.centre(),
    }


def _states(workers: Mapping[str, Health]) -> Mapping[str, str]:
    return {name: health.state for name, health in workers.items()}
