"""Ed25519 keys, and signatures over DSSE's pre-authentication encoding.

An envelope is DSSE-shaped (https://github.com/secure-systems-lab/dsse): the signature covers the
type and the exact bytes of the payload, so that nothing has to be re-serialised to check it.
"""

import base64
import binascii
import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from agent.core.errors import ConfigError, IntegrityError
from agent.core.files import write_atomic
from agent.core.wire import Json

KEY_FILE_MODE = 0o600
PUBLIC_FILE_MODE = 0o644
_KEYID_HEX = 32
_DSSE = b"DSSEv1"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """The half of a key that checks signatures."""

    raw: bytes

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a PEM file (SubjectPublicKeyInfo).

        Raises:
            ConfigError: the file cannot be read or holds no Ed25519 public key.
        """
        try:
            key = load_pem_public_key(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; allowed: a public key file") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ConfigError(f"{path}: no public key; allowed: Ed25519 in PEM form") from error
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigError(f"{path}: {type(key).__name__}; allowed: Ed25519 in PEM form")
        return cls(key.public_bytes_raw())

    @property
    def keyid(self) -> str:
        """Short name of the key: the first half of the SHA-256 of its raw bytes."""
        return "ed25519:" + hashlib.sha256(self.raw).hexdigest()[:_KEYID_HEX]

    @property
    def pem(self) -> bytes:
        """The key as a PEM file's content."""
        key = Ed25519PublicKey.from_public_bytes(self.raw)
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def is_signed(self, payload_type: str, payload: bytes, signature: str) -> bool:
        """Whether this key made the base64 signature over the payload and its type."""
        try:
            key = Ed25519PublicKey.from_public_bytes(self.raw)
            key.verify(_unbase64(signature), pae(payload_type, payload))
        except (InvalidSignature, ValueError):
            return False
        return True


class DeviceKey:
    """The private key of this box or of a receiver."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """Read the key, or make it at first start; the public half stands beside it as `.pub`.

        Raises:
            ConfigError: the file is no key, cannot be read or made, or others may read it.
        """
        try:
            if not path.exists():
                cls._create(path)
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                raise ConfigError(f"{path}: mode {mode:04o} lets others read it; allowed: 0600")
            key = load_pem_private_key(path.read_bytes(), password=None)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}; allowed: a private key file") from error
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigError(f"{path}: no private key; allowed: Ed25519 in PEM form") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"{path}: {type(key).__name__}; allowed: Ed25519 in PEM form")
        own = cls(key)
        own._publish(path.with_suffix(".pub"))
        return own

    @property
    def public(self) -> PublicKey:
        """The half that may be given away."""
        return PublicKey(self._key.public_key().public_bytes_raw())

    @property
    def keyid(self) -> str:
        """Short name of the key."""
        return self.public.keyid

    def sign(self, payload_type: str, payload: bytes) -> str:
        """Give the base64 signature over the payload and its type."""
        return base64.b64encode(self._key.sign(pae(payload_type, payload))).decode()

    @staticmethod
    def _create(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_atomic(path, pem, KEY_FILE_MODE)

    def _publish(self, path: Path) -> None:
        try:
            if not path.exists() or path.read_bytes() != self.public.pem:
                write_atomic(path, self.public.pem, PUBLIC_FILE_MODE)
        except OSError as error:
            raise ConfigError(
                f"{path}: {error.strerror}; allowed: a file for the public key"
            ) from error


def pae(payload_type: str, payload: bytes) -> bytes:
    """Give DSSE's pre-authentication encoding: what is really signed."""
    kind = payload_type.encode()
    return b" ".join((_DSSE, str(len(kind)).encode(), kind, str(len(payload)).encode(), payload))


def envelope(key: DeviceKey, payload_type: str, payload: bytes) -> Json:
    """Wrap and sign a payload."""
    return {
        "payloadType": payload_type,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key.keyid, "sig": key.sign(payload_type, payload)}],
    }


def open_envelope(document: Json, payload_type: str, key: PublicKey) -> bytes:
    """Check an envelope's type and signature and give its payload.

    Raises:
        IntegrityError: naming the first thing wrong.
    """
    if document["payloadType"] != payload_type:
        raise IntegrityError(f"payload type {document['payloadType']!r}; allowed: {payload_type!r}")
    try:
        payload = _unbase64(document["payload"])
    except ValueError as error:
        raise IntegrityError(f"payload: not base64: {error}") from error
    signatures = [item for item in document["signatures"] if item["keyid"] == key.keyid]
    if not signatures:
        named = ", ".join(str(item["keyid"])[:80] for item in document["signatures"])
        raise IntegrityError(f"signature: made by {named!r}; wanted: {key.keyid}")
    if not any(key.is_signed(payload_type, payload, item["sig"]) for item in signatures):
        raise IntegrityError(f"signature of {key.keyid}: does not fit the payload")
    return payload


def _unbase64(text: str) -> bytes:
    """Decode the one text that stands for these bytes: spare bits of the last letter must be 0."""
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
    if base64.b64encode(raw).decode() != text:
        raise ValueError("spare bits are set")
    return raw
