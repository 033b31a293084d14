"""What every role delivers by: true time, outbox, uplink, file transfers, the centre's words.

Nothing is started here; a role adds its own stages and hands all workers to the supervisor.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.core.checkup import Checkup
from agent.core.wire import Topics
from agent.delivery.centrestore import CentreStore, Retell
from agent.delivery.meter import Meter
from agent.delivery.outbox import Outbox
from agent.delivery.transfer import Ledger, Transfers, file_sessions
from agent.delivery.uplink import Uplink, live_sessions
from agent.device.commands import Commands, Word
from agent.device.metrics import Figures, exposition
from agent.device.quarantine import Quarantine
from agent.device.replay import Replay
from agent.device.requests import Do
from agent.device.scrape import Scrape
from agent.device.telemetry import Facts
from agent.device.timekeeper import Sources, Timekeeper
from agent.device.wants import Wants
from agent.roles import centreword, fileorders
from agent.roles.centreword import CentreWord
from agent.roles.kit import Kit
from agent.supervisor import Worker


@dataclass(frozen=True, slots=True)
class Spine:
    """The parts of delivery, wired to each other."""

    kit: Kit
    times: Timekeeper
    outbox: Outbox
    word: CentreWord
    uplink: Uplink
    ledger: Ledger
    transfers: Transfers
    meter: Meter
    commands: Commands
    quarantine: Quarantine
    wants: Wants

    def workers(self) -> Sequence[Worker]:
        """Give the threads of delivery."""
        checkup = Checkup(self.kit.store, self.kit.clock)
        return (self.uplink, self.transfers, self.commands, checkup, self.wants, self.times)

    def box_words(self) -> Mapping[str, Do]:
        """Give what people at the box may ask of delivery."""
        return {**fileorders.words(self.ledger), **self.quarantine.words}

    def scrape(self, facts: Facts) -> Sequence[Worker]:
        """Give the worker that answers Prometheus, if the site wants it."""
        config = self.kit.config
        if not config.metrics.enabled:
            return ()
        figures = Figures(
            site=config.site,
            device=config.device,
            role=config.role,
            facts=facts,
            uplink=self.uplink.status,
            transfers=self.transfers.status,
            backlog=self.ledger.backlog,
            clock=self.times.state,
        )
        return (Scrape(config.metrics, lambda: exposition(figures), self.kit.clock),)

    def latest_receipt_utc_ns(self) -> int | None:
        """Give when the centre signed for something last."""
        both = (self.uplink.status(), self.transfers.status())
        times = (status.last_receipt_utc_ns for status in both)
        return max((time for time in times if time is not None), default=None)

    def centre(self) -> str:
        """Say which key the centre signs with, and whether it takes files."""
        is_full = self.transfers.status().is_centre_full
        keyid = self.kit.centre_keys.current.keyid
        return f"{'full: files wait; ' if is_full else ''}signs as {keyid}"


def wire(
    kit: Kit,
    birth: Callable[[Sequence[Mapping[str, object]]], Mapping[str, object]],
    words: Mapping[str, Word],
    retell: Retell,
) -> Spine:
    """Make the parts.

    Args:
        kit: configuration, store, keys and clock.
        birth: gives the body of the birth message, by the numbers of earlier starts.
        words: commands of the centre that this role knows, besides `replay`.
        retell: what is told once more to a centre that has lost its store.
    """
    config, clock, store = kit.config, kit.clock, kit.store
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
    word = CentreWord(kit.centre_keys, config.device)
    uplink = Uplink(
        live_sessions(config.broker, config.delivery, topics, kit.boot, clock),
        outbox,
        word.rows,
        lambda: birth(numbers),
        clock,
        config.delivery,
    )
    replay = Replay(store, config.device, kit.key, clock, uplink.resend)
    commands = Commands(store, outbox, word.command, {"replay": replay, **words}, clock)
    uplink.listen(commands.topic, commands.hear)
    ledger = Ledger(store, config.state_dir, clock, kit.note_custody, outbox.put_in)
    transfers = Transfers(
        file_sessions(config.broker, topics, clock),
        ledger,
        topics,
        word.file,
        clock,
        config.delivery,
    )
    meter = Meter(config.uplink.schedule, clock, store, times.state)
    uplink.obey(meter)
    transfers.obey(meter)
    centre_store = CentreStore(
        store, config.state_dir, clock, kit.note_custody, outbox.put_in, retell
    )
    wants = Wants(topics, centreword.wants(kit.centre_keys, word, centre_store), clock)
    uplink.listen(wants.topic, wants.hear)
    quarantine = Quarantine(store, outbox, kit.note_custody, uplink.retry)
    return Spine(
        kit,
        times,
        outbox,
        word,
        uplink,
        ledger,
        transfers,
        meter,
        commands,
        quarantine,
        wants,
    )
