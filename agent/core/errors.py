"""Every error of the agent, grouped by what the caller does about it.

AgentError
  ConfigError          stop, exit 78: only a person can mend it
  Transient            retry with jittered back-off, for ever
    SourceLost           the camera, vehicle or card went away
    UplinkDown           the broker or the receiver is out of reach
    DeviceBusy           somebody else holds the device
  Permanent            disable this worker, raise an alarm, the rest lives on
    Unsupported          the other side speaks something we do not
    ModelRejected        a detector that fails its manifest or does not load
    AuthRefused          credentials that the other side turns down
  StorageError         evict, then retry or stop
    OutboxFull           the store has reached its share of the disk
    StoreCorrupt         the database does not pass its check
    RowRefused           a row breaks a rule of its table, now and at any time
  IntegrityError       never retried, never hidden
    HashMismatch         bytes differ from what was signed
    ChainBroken          a custody entry was changed, removed or reordered
    ReceiptInvalid       an acknowledgement that the pinned key did not sign
    MalformedMessage     a message that its JSON Schema refuses
"""


class AgentError(Exception):
    """Base of all our errors; the message names the thing, the value and what is allowed."""


class ConfigError(AgentError):
    """A configuration that only a person can mend; `problems` holds one line per mistake."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Transient(AgentError):
    """Goes away by itself: retry with jittered back-off."""


class SourceLost(Transient):
    """The camera, vehicle or card went away."""


class UplinkDown(Transient):
    """The broker or the receiver is out of reach."""


class DeviceBusy(Transient):
    """Somebody else holds the device."""


class Permanent(AgentError):
    """Does not go away by itself: this worker stops, the others go on."""


class Unsupported(Permanent):
    """The other side speaks something we do not."""


class ModelRejected(Permanent):
    """A detector that fails its manifest or does not load."""


class AuthRefused(Permanent):
    """Credentials that the other side turns down."""


class StorageError(AgentError):
    """The disk or the database refuses a write."""


class OutboxFull(StorageError):
    """The store has reached its share of the disk."""


class StoreCorrupt(StorageError):
    """The database does not pass its check."""


class RowRefused(StorageError):
    """A row breaks a rule of its table: a second one with its key, a value that is not allowed."""


class IntegrityError(AgentError):
    """Something is not what was signed: never retried, never hidden."""


class HashMismatch(IntegrityError):
    """Bytes differ from what was signed."""


class ChainBroken(IntegrityError):
    """A custody entry was changed, removed or reordered."""


class ReceiptInvalid(IntegrityError):
    """An acknowledgement that the pinned key did not sign, or for something else."""


class MalformedMessage(IntegrityError):
    """A message that its JSON Schema refuses."""
