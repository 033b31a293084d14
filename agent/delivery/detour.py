"""Files past the broker: what the worker of the file link has to do with uploads, and no more."""

from agent.core import log
from agent.core.clock import Clock
from agent.core.wire import Json
from agent.delivery.bulk import Uploads
from agent.delivery.config import DeliveryConfig
from agent.delivery.ledger import Ledger
from agent.delivery.meter import Meter
from agent.delivery.parts import check_url
from agent.delivery.patience import Complaints
from agent.delivery.sending import Harmed, Sending

_log = log.get(__name__)


class Detour:
    """The uploads of one worker; used by its thread."""

    def __init__(self, ledger: Ledger, config: DeliveryConfig, clock: Clock) -> None:
        self._ledger = ledger
        self._config = config
        self._clock = clock
        self._complaints = Complaints(_log)
        self._uploads = Uploads(config.bulk_ca_path, clock)

    @property
    def is_open(self) -> bool:
        """Whether this box may upload anywhere at all."""
        return bool(self._config.bulk_hosts)

    @property
    def sent_bytes(self) -> int:
        """What went this way, since the start."""
        return self._uploads.sent_bytes

    def check(self, need: Json) -> None:
        """Look where the parts of a need would go.

        Raises:
            MalformedMessage: a URL is none.
            ForbiddenHost: one leads to where this box may not upload.
        """
        if self.is_open:
            for part in need.get("parts", ()):
                check_url(part["url"], self._config.bulk_hosts)

    def turn(self, sending: Sending, meter: Meter) -> None:
        """Have a file's parts uploaded as the meter lets them, or see what has become of that.

        Raises:
            Harmed: the file is not what it was.
        """
        outcome = self._uploads.turn(sending, self._ledger.file(sending.transfer), meter)
        if outcome is None:
            return
        if isinstance(outcome.error, Harmed):
            raise outcome.error
        now_ns, error = self._clock.mono_ns(), outcome.error
        sending.uploaded(now_ns, is_whole=error is None, has_moved=outcome.uploaded > 0)
        if error is not None:
            fid = sending.transfer.fid
            self._complaints.add("upload ended", now_ns, fid=fid, reason=error)

    def drop(self, fid: str) -> None:
        """End a file's upload, if it is the one that runs."""
        self._uploads.drop(fid)
