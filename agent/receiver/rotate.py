"""A receiver's next key: made here, or that of the receiver which takes its place.

Whatever stops it in between: either the old key still signs, or the next start ends the change.
"""

from pathlib import Path

from agent.core import log, wire
from agent.core.clock import NS_PER_MS, Clock
from agent.core.errors import ConfigError
from agent.core.files import sync_directory, write_atomic
from agent.evidence import rotation
from agent.evidence.keys import DeviceKey, PublicKey
from agent.receiver.identity import ROTATIONS, read_rotations

KEY, NEXT = "receiver.key", "receiver-next.key"
HANDED = "rotations-for-the-next.json"

_log = log.get(__name__)


def in_place(store_dir: Path, site: str, clock: Clock) -> Path:
    """Give a receiver a new key; the old one stays beside it under its number.

    Returns:
        The new public key's file.

    Raises:
        ConfigError: there is no key yet, or the chain does not fit it.
    """
    finish(store_dir)
    new = DeviceKey.load_or_create(store_dir / NEXT)
    chain = _grown(store_dir, site, new.public, clock)
    write_atomic(store_dir / ROTATIONS, chain)
    finish(store_dir)
    return (store_dir / KEY).with_suffix(".pub")


def hand_over(store_dir: Path, site: str, new: PublicKey, out: Path, clock: Clock) -> Path:
    """Write the chain that makes another receiver's key the next one, for its folder.

    Raises:
        ConfigError: there is no key here, or the chain does not fit it.
    """
    write_atomic(out, _grown(store_dir, site, new, clock))
    return out


def finish(store_dir: Path) -> None:
    """End a change of key that was begun; nothing where none was."""
    following = store_dir / NEXT
    if not following.exists():
        return
    new = DeviceKey.load_or_create(following)
    try:
        steps = wire.decode("receiver_keys", (store_dir / ROTATIONS).read_bytes())["rotations"]
    except FileNotFoundError:
        return  # its step was never signed: the old key goes on, and the next try takes it
    last = rotation.claims(steps[-1])
    if rotation.public_key(last["new_key"]) != new.public:
        return
    number = last["number"]
    old = store_dir / KEY
    if old.exists():
        DeviceKey.load_or_create(old)  # its public half stands beside it
        old.replace(store_dir / f"receiver-{number}.key")
        old.with_suffix(".pub").replace(store_dir / f"receiver-{number}.pub")
    following.replace(old)
    following.with_suffix(".pub").unlink(missing_ok=True)
    sync_directory(store_dir)
    DeviceKey.load_or_create(old)
    _log.warning("the receiver has a new key", keyid=new.keyid, number=number + 1)


def _grown(store_dir: Path, site: str, new: PublicKey, clock: Clock) -> bytes:
    path = store_dir / KEY
    if not path.exists():
        raise ConfigError(f"{path}: no such file; allowed: the key that devices have pinned")
    old = DeviceKey.load_or_create(path)
    before = list(read_rotations(store_dir, old, site))
    if len(before) >= rotation.MOST_STEPS:
        raise ConfigError(
            f"{store_dir / ROTATIONS}: {len(before)} steps; allowed: {rotation.MOST_STEPS}"
        )
    if new == old.public:
        raise ConfigError(f"{new.keyid}: is the key already; allowed: another one")
    number = 1 + (rotation.claims(before[-1])["number"] if before else 0)
    step = rotation.sign(old, new, site, number, max(0, clock.utc_ns() // NS_PER_MS))
    return wire.encode({"sv": wire.SCHEMA_VERSION, "rotations": [*before, step]})
