"""Transfers of files: an offer is checked against its manifest, a file is signed for when stored.

Nothing is believed that is not signed: the manifest by the device's registered key, the bytes by
the hashes in it. Ranges count only after a sync, so a killed receiver asks again for what it is
not sure of. Each answer is a `need` or a receipt, and every question may be repeated.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.core import log, wire
from agent.core.clock import NS_PER_MS, NS_PER_S, Clock
from agent.core.errors import AgentError, IntegrityError, StorageError
from agent.core.store import Store
from agent.evidence import manifest
from agent.evidence.keys import DeviceKey, PublicKey
from agent.evidence.receipt import sign_file_receipt
from agent.receiver.archive import Archive, Full, Refused, RefusedForGood, is_full
from agent.receiver.assembly import FLUSH_BYTES, MOST_RANGES, Assembly
from agent.receiver.bulk import Bulk, Outcome
from agent.receiver.checks import Checks
from agent.receiver.config import ReceiverConfig
from agent.receiver.offered import Offered
from agent.receiver.ranges import Ranges, Span
from agent.receiver.records import Records

FLUSH_NS = NS_PER_S
MS_PER_DAY = 86_400_000
PROMISED_MS = 3_600_000  # room is kept so long for a transfer that has stopped

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """A message back to the device: its topic's last part and its document."""

    device: str
    fid: str
    part: str  # need or receipt
    document: wire.Json


class Files:
    """All transfers of a receiver; used by one thread."""

    def __init__(self, store: Store, config: ReceiverConfig, key: DeviceKey, clock: Clock) -> None:
        self._records = Records(store, clock)
        self._archive = Archive(config, clock)
        self._checks = Checks()
        self._bulk = _bulk(store, config, clock)
        self._config = config
        self._key = key
        self._clock = clock
        self._open: dict[tuple[str, str], Assembly] = {}  # the longest unused first
        self._flushed_ns = 0

    @property
    def is_checking(self) -> bool:
        """Whether an answer will be there soon without a further message."""
        return self._checks.is_busy or (self._bulk is not None and self._bulk.is_busy)

    def tidy(self) -> None:
        """Remove part files that no row speaks of: their devices offer them again."""
        known = self._records.all_pending()
        for device, fid in self._archive.parts():
            if (device, fid) not in known:
                self._archive.part(device, fid).unlink(missing_ok=True)
                _log.info("part without a row removed", device=device, fid=fid)

    def offer(self, document: wire.Json, key: PublicKey) -> Answer | None:
        """Take an offer, already valid against its schema and from its own device.

        None: the answer comes with `checked`, for the S3 server has to be asked.

        Raises:
            Refused: with the reason for the device.
        """
        device, fid = document["device"], document["fid"]
        if (receipt := self._given_receipt(device, document)) is not None:
            return Answer(device, fid, "receipt", receipt)
        entry, clip_id = self._promised(document, key)
        before = self._records.receipt(device, fid)
        if before is not None and before.get("places"):
            signed = self._sign(document, clip_id, before["places"][0])
            return Answer(device, fid, "receipt", signed)
        is_open = (device, fid) in self._open
        assembly = self._open.get((device, fid)) or self._resumed(device, fid, key)
        if assembly is not None and not _is_same(assembly.offer, document):
            raise RefusedForGood(f"transfer {fid} stands for another file")
        if not is_open and self._is_kept(document, clip_id):  # also: killed between rename and row
            return self._settled(document, clip_id)
        if assembly is None and self._bulk is not None and self._bulk.takes(document):
            self._ask_bulk(self._bulk, document, entry, clip_id)
            return None
        return self._need(assembly or self._begun(document, entry, clip_id))

    def chunk(self, device: str, fid: str, offset: int, data: bytes, key: PublicKey) -> bool:
        """Take a chunk; false for one of a transfer that is not under way.

        Raises:
            MalformedMessage: it does not lie inside the file.
        """
        assembly = self._found(device, fid, key)
        if assembly is None or assembly.is_checking:
            return False
        assembly.write(offset, data)
        if assembly.dirty_bytes >= FLUSH_BYTES:
            self._flush([assembly])
        return True

    def done(self, device: str, document: wire.Json, key: PublicKey) -> Answer | None:
        """Answer that all was sent; None while the file is checked, or has to be offered again.

        Raises:
            Refused: the transfer is one of another file.
        """
        fid = document["fid"]
        if (receipt := self._given_receipt(device, document)) is not None:
            return Answer(device, fid, "receipt", receipt)
        assembly = self._found(device, fid, key)
        if assembly is None:
            self._bulk_done(device, document, key)
        if assembly is None or assembly.is_checking:
            return None
        if (document["sha256"], document["size_bytes"]) != _content(assembly.offer):
            raise RefusedForGood(f"transfer {fid} stands for another file")
        self._place_anew(assembly)
        if self._is_kept(assembly.offer, assembly.clip_id):  # killed between rename and row
            return self._settled(assembly.offer, assembly.clip_id)
        if not self._flush([assembly]):
            return None
        if assembly.missing:
            return self._need(assembly)
        self._checks.start(assembly)
        return None

    def checked(self) -> list[tuple[Answer | None, str]]:
        """Give what has come of files that were checked: an answer, or one with what is wrong."""
        found = [self._judged(assembly, wrong) for assembly, wrong in self._checks.ended()]
        if self._bulk is not None:
            found += [self._bulk_judged(self._bulk, outcome) for outcome in self._bulk.ended()]
        return found

    def flush_due(self) -> None:
        """Sync what has been written for a second."""
        now_ns = self._clock.mono_ns()
        if now_ns - self._flushed_ns >= FLUSH_NS:
            self._flushed_ns = now_ns
            self._flush([item for item in self._open.values() if item.dirty_bytes])

    def refusal(self, device: str, fid: str, error: Exception) -> Answer:
        """Say that a file is not taken, why, and whether it is of use to come again."""
        document: wire.Json = {
            "sv": wire.SCHEMA_VERSION,
            "fid": fid,
            "ranges": [],
            "max_chunk_bytes": self._config.max_chunk_bytes,
            "rate_bytes_per_s": 0,
            "refused": str(error)[:256],
        }
        if is_full(error):
            document |= {"full": True, "retry_after_s": self._config.full_retry_s}
        elif isinstance(error, Refused) and error.is_final:
            document["never"] = True
        return Answer(device, fid, "need", document)

    def close(self) -> None:
        """Sync and close all."""
        if self._bulk is not None:
            self._bulk.close()
        self._checks.close()
        self._flush([item for item in self._open.values() if item.dirty_bytes])
        for assembly in self._open.values():
            assembly.is_checking = False
            assembly.close()
        self._open.clear()

    def _given_receipt(self, device: str, document: wire.Json) -> wire.Json | None:
        """Give the receipt of a transfer that has ended, if the file is there and the key ours."""
        receipt = self._records.receipt(device, document["fid"])
        if receipt is None:
            return None
        if _content(receipt) != _content(document):
            raise RefusedForGood(f"transfer {document['fid']} was signed for with another file")
        if receipt["keyid"] != self._key.keyid:
            return None  # signed by the key before ours: looked at again, and signed anew
        if receipt.get("places"):
            return receipt  # kept by an S3 server
        places = self._records.places(device, receipt["sha256"])
        size_bytes = receipt["size_bytes"]
        is_here = all(self._archive.has(place, size_bytes) for place in places)
        return receipt if is_here else None

    def _promised(self, offer: wire.Json, key: PublicKey) -> tuple[wire.Json, str]:
        """Give the file's entry in the manifest, and the name of the hand-over's folder."""
        try:
            promised = manifest.read(offer["manifest"], key)
        except IntegrityError as error:
            raise Refused(f"manifest: {error}") from error
        if (promised["device"], promised["site"]) != (offer["device"], self._config.site):
            raise RefusedForGood(
                f"manifest of {promised['site']}/{promised['device']};"
                f" allowed: {self._config.site}/{offer['device']}"
            )
        for entry in promised["files"]:
            fields = ("name", "size_bytes", "sha256", "leaf_root")
            if all(entry[field] == offer[field] for field in fields):
                folder = self._archive.folder(
                    offer["device"], promised["clip_id"], offer["manifest"]
                )
                return entry, folder
        raise RefusedForGood(f"file {offer['name']!r} does not stand so in its manifest")

    def _is_kept(self, offer: wire.Json, clip_id: str) -> bool:
        """Whether the bytes are in the store, under this name or, then linked, under another."""
        device, sha256, name = offer["device"], offer["sha256"], offer["name"]
        signed_for = self._records.stored_sha256(device, clip_id, name)
        if signed_for not in (None, sha256):
            raise Refused(f"file {clip_id}/{name} is kept with other bytes")
        place = self._archive.place(device, clip_id, name)
        if place.exists():
            if self._archive.holds(place, sha256):
                self._archive.keep_manifest(offer, place)
                return True
            self._archive.set_aside(place, f"{device}-{clip_id}-{name}")
            _log.error("stored file damaged, asked for again", path=self._archive.relative(place))
        other = self._records.same_content(device, sha256)
        if other is None or other == self._archive.relative(place):
            return False
        self._archive.keep_manifest(offer, place)
        return self._archive.link(other, place, sha256)

    def _ask_bulk(self, bulk: Bulk, offer: wire.Json, entry: wire.Json, clip_id: str) -> None:
        known = bulk.known(offer["device"], offer["fid"])
        if known is not None and not _is_same(known, offer):
            raise RefusedForGood(f"transfer {offer['fid']} stands for another file")
        if offer["size_bytes"] > self._config.max_file_bytes:
            raise RefusedForGood(
                f"{offer['size_bytes']} bytes; allowed: {self._config.max_file_bytes}"
            )
        self._archive.has_manifest(
            offer, self._archive.place(offer["device"], clip_id, offer["name"])
        )
        bulk.ask(Offered(offer, entry, clip_id))

    def _bulk_done(self, device: str, document: wire.Json, key: PublicKey) -> None:
        offer = None if self._bulk is None else self._bulk.known(device, document["fid"])
        if self._bulk is None or offer is None:
            return
        if _content(document) != _content(offer):
            raise RefusedForGood(f"transfer {document['fid']} stands for another file")
        self._bulk.ask(Offered(offer, *self._promised(offer, key)))

    def _bulk_judged(self, bulk: Bulk, outcome: Outcome) -> tuple[Answer | None, str]:
        """Ask for parts, or sign for a whole that was read back and found right."""
        offer, clip_id = outcome.offered.offer, outcome.offered.clip_id
        device, fid = outcome.offered.ids
        try:
            if outcome.wrong is not None:
                raise outcome.wrong
            if not outcome.place:
                spans = outcome.ranges[:MOST_RANGES]
                need = self._need_of(fid, spans) | {"parts": list(outcome.parts)}
                return Answer(device, fid, "need", need), ""
            self._archive.keep_manifest(offer, self._archive.place(device, clip_id, offer["name"]))
            receipt = self._sign(offer, clip_id, outcome.place)
            bulk.forget(device, fid)
        except (AgentError, OSError) as error:
            reason = f"{offer['name']}: {error}"
            if is_full(error):
                return self.refusal(device, fid, error), reason
            if isinstance(error, IntegrityError):
                return self.refusal(device, fid, Refused(reason)), reason
            return None, f"{fid}: {error}"
        return Answer(device, fid, "receipt", receipt), ""

    def _begun(self, offer: wire.Json, entry: wire.Json, clip_id: str) -> Assembly:
        device, size_bytes = offer["device"], offer["size_bytes"]
        if size_bytes > self._config.max_file_bytes:
            raise RefusedForGood(f"{size_bytes} bytes; allowed: {self._config.max_file_bytes}")
        since_ms = self._clock.utc_ns() // NS_PER_MS - PROMISED_MS
        free_bytes = max(0, self._archive.free_bytes - self._records.missing_bytes(since_ms))
        if size_bytes > free_bytes:
            raise Full(f"full: {free_bytes} bytes are free; needed: {size_bytes}")
        self._make_room(device, size_bytes)
        self._archive.has_manifest(offer, self._archive.place(device, clip_id, offer["name"]))
        path = self._archive.part(device, offer["fid"])
        assembly = self._opened(Assembly(path, offer, entry, clip_id), Ranges())
        self._records.save([assembly])
        return assembly

    def _make_room(self, device: str, size_bytes: int) -> None:
        """Forget the transfers longest untouched: their devices still have the files."""
        pending = self._records.pending(device)
        count, total_bytes = len(pending) + 1, sum(item.size_bytes for item in pending) + size_bytes
        for item in pending:
            limit = self._config
            if (
                count <= limit.max_incoming_per_device
                and total_bytes <= limit.max_incoming_bytes_per_device
            ):
                return
            assembly = self._open.get((device, item.fid))
            if assembly is not None and assembly.is_checking:
                continue
            if assembly is not None:
                self._close(assembly)
            self._records.forget(device, item.fid)
            self._archive.part(device, item.fid).unlink(missing_ok=True)
            _log.warning("unfinished transfer given up", device=device, fid=item.fid)
            count, total_bytes = count - 1, total_bytes - item.size_bytes

    def _found(self, device: str, fid: str, key: PublicKey) -> Assembly | None:
        assembly = self._open.pop((device, fid), None)
        if assembly is None:
            return self._resumed(device, fid, key)
        self._open[device, fid] = assembly
        return assembly

    def _resumed(self, device: str, fid: str, key: PublicKey) -> Assembly | None:
        """Open a transfer again that the index knows; its manifest is checked again too."""
        known = self._records.incoming(device, fid)
        if known is None:
            return None
        offer, have = known
        try:
            entry, clip_id = self._promised(offer, key)
        except Refused:  # the device has another key now
            self._records.forget(device, fid)
            return None
        return self._opened(Assembly(self._archive.part(device, fid), offer, entry, clip_id), have)

    def _opened(self, assembly: Assembly, have: Ranges) -> Assembly:
        mine = [item for item in self._open.values() if item.device == assembly.device]
        idle = [item for item in mine if not item.is_checking]
        if len(mine) >= self._config.max_open_per_device and idle:
            self._flush(idle[:1])
            self._close(idle[0])
        self._open[assembly.device, assembly.fid] = assembly.open(have)
        return assembly

    def _need(self, assembly: Assembly) -> Answer:
        document = self._need_of(assembly.fid, assembly.missing)
        return Answer(assembly.device, assembly.fid, "need", document)

    def _need_of(self, fid: str, spans: Sequence[Span]) -> wire.Json:
        return {
            "sv": wire.SCHEMA_VERSION,
            "fid": fid,
            "ranges": [list(span) for span in spans],
            "max_chunk_bytes": self._config.max_chunk_bytes,
            "rate_bytes_per_s": self._config.rate_bytes_per_s,
        }

    def _flush(self, assemblies: Sequence[Assembly]) -> bool:
        """Sync, then note; what cannot be synced counts as never received."""
        synced = [item for item in assemblies if self._is_synced(item)]
        if not synced:
            return not assemblies
        try:
            self._records.save(synced)
        except StorageError as error:
            _log.error("ranges not noted, will be asked for again", reason=error)
            for assembly in synced:
                self._close(assembly)
            return False
        return len(synced) == len(assemblies)

    def _is_synced(self, assembly: Assembly) -> bool:
        try:
            assembly.sync()
        except OSError as error:
            # After a failed sync the kernel may have dropped the pages: never taken for written.
            _log.error("part file not synced", path=assembly.path, reason=error)
            self._close(assembly)
            return False
        return True

    def _close(self, assembly: Assembly) -> None:
        assembly.close()
        self._open.pop((assembly.device, assembly.fid), None)

    def _judged(
        self, assembly: Assembly, wrong: AgentError | OSError | None
    ) -> tuple[Answer | None, str]:
        device, fid = assembly.device, assembly.fid
        if wrong is None:
            try:
                return Answer(device, fid, "receipt", self._taken_in(assembly)), ""
            except (Refused, OSError, StorageError) as error:
                wrong = error
        self._close(assembly)
        if is_full(wrong):
            return self.refusal(device, fid, wrong), f"{fid}: {wrong}"
        if isinstance(wrong, IntegrityError):
            reason = f"{assembly.offer['name']}: {wrong}"
            try:
                self._set_aside(assembly)
            except (OSError, StorageError) as error:
                return None, f"{fid}: {reason}; not set aside: {error}"
            return self.refusal(device, fid, Refused(reason)), reason
        return None, f"{fid}: {wrong}"

    def _taken_in(self, assembly: Assembly) -> wire.Json:
        self._place_anew(assembly)
        offer, clip_id = assembly.offer, assembly.clip_id
        place = self._archive.place(assembly.device, clip_id, offer["name"])
        if self._is_kept(offer, clip_id):
            return self._settled(offer, clip_id).document
        self._archive.keep_manifest(offer, place)
        self._close(assembly)
        self._archive.take_in(assembly.path, place)
        return self._sign(offer, clip_id)

    def _place_anew(self, assembly: Assembly) -> None:
        """Look again where it belongs: another version of the hand-over may have come since."""
        clip_id = assembly.clip_id.partition(".")[0]
        signed = assembly.offer["manifest"]
        assembly.clip_id = self._archive.folder(assembly.device, clip_id, signed)

    def _settled(self, offer: wire.Json, clip_id: str) -> Answer:
        """Sign for a file that is kept; what there is of another copy goes."""
        device, fid = offer["device"], offer["fid"]
        if (assembly := self._open.get((device, fid))) is not None:
            self._close(assembly)
        self._archive.part(device, fid).unlink(missing_ok=True)
        return Answer(device, fid, "receipt", self._sign(offer, clip_id))

    def _sign(self, offer: wire.Json, clip_id: str, elsewhere: str = "") -> wire.Json:
        """Sign for a file and note where it is: in the archive, or in an object of a bucket."""
        now_ms = self._clock.utc_ns() // NS_PER_MS
        place = self._archive.place(offer["device"], clip_id, offer["name"])
        places = {"places": [elsewhere]} if elsewhere else {}
        receipt = sign_file_receipt(
            places
            | {
                "fid": offer["fid"],
                "device": offer["device"],
                "sha256": offer["sha256"],
                "size_bytes": offer["size_bytes"],
                "stored_utc_ms": now_ms,
                "copies": self._config.copies,
                "retention_until_utc_ms": now_ms + self._config.retention_days * MS_PER_DAY,
                "receiver": self._config.name,
            },
            self._key,
        )
        self._archive.keep_receipt(receipt, place)
        path = elsewhere or self._archive.relative(place)
        self._records.settle(receipt, clip_id, offer["name"], path)
        return receipt

    def _set_aside(self, assembly: Assembly) -> None:
        self._archive.set_aside(assembly.path, f"{assembly.device}-{assembly.fid}")
        self._records.forget(assembly.device, assembly.fid)


def _bulk(store: Store, config: ReceiverConfig, clock: Clock) -> Bulk | None:
    return None if config.bulk is None else Bulk(store, config.bulk, config.site, clock)


def _content(document: wire.Json) -> tuple[str, int]:
    return document["sha256"], document["size_bytes"]


def _is_same(one: wire.Json, other: wire.Json) -> bool:
    return all(one[name] == other[name] for name in ("name", "size_bytes", "sha256", "manifest"))
