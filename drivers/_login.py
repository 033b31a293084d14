"""The answer to a camera that asks who we are: Digest (RFC 7616) or Basic, in HTTP and in RTSP."""

import hashlib
import os
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

_SCHEMES: Final = re.compile(
    r"(?:^|,)\s*(?=(?:Digest|Basic|Bearer|Negotiate|NTLM)\b)", re.IGNORECASE
)
_FIELD: Final = re.compile(r'(\w+)\s*=\s*(?:"([^"]*)"|([^\s,"]+))')
_HASHES: Final = {"": "md5", "md5": "md5", "sha-256": "sha256"}


@dataclass(frozen=True, slots=True)
class Login:
    """Who asks."""

    user: str = ""
    password: str = field(default="", repr=False)


def authorization(challenges: Sequence[str], method: str, uri: str, login: Login) -> str:
    """Answer the first challenge that we know, Digest before Basic; empty if we know none.

    Args:
        challenges: the values of WWW-Authenticate.
        method: of the request that goes again.
        uri: as its first line has it.
        login: who asks.
    """
    found = [part.strip() for text in challenges for part in _SCHEMES.split(text) if part.strip()]
    for challenge in found:
        fields = {key.lower(): quoted or bare for key, quoted, bare in _FIELD.findall(challenge)}
        name = _HASHES.get(fields.get("algorithm", "").lower())
        if challenge.lower().startswith("digest") and name is not None:
            return _digest(fields, name, f"{method}:{uri}", login)
    if any(challenge.lower().startswith("basic") for challenge in found):
        return "Basic " + b64encode(f"{login.user}:{login.password}".encode()).decode()
    return ""


def _digest(fields: Mapping[str, str], name: str, asked: str, login: Login) -> str:
    """Answer a Digest challenge (RFC 7616)."""

    def hashed(text: str) -> str:
        return hashlib.new(name, text.encode(), usedforsecurity=False).hexdigest()

    realm, nonce = fields.get("realm", ""), fields.get("nonce", "")
    offered = [one.strip() for one in fields.get("qop", "").split(",")]
    cnonce, count = os.urandom(8).hex(), "00000001"
    middle = f"{nonce}:{count}:{cnonce}:auth" if "auth" in offered else nonce
    secret = hashed(f"{login.user}:{realm}:{login.password}")
    quoted = {
        "username": login.user.replace("\\", "\\\\").replace('"', '\\"'),
        "realm": realm,
        "nonce": nonce,
        "uri": asked.partition(":")[2],
        "response": hashed(f"{secret}:{middle}:{hashed(asked)}"),
        **({"opaque": fields["opaque"]} if "opaque" in fields else {}),
        **({"cnonce": cnonce} if "auth" in offered else {}),
    }
    bare = {
        **({"algorithm": fields["algorithm"]} if "algorithm" in fields else {}),
        **({"qop": "auth", "nc": count} if "auth" in offered else {}),
    }
    parts = [*(f'{key}="{value}"' for key, value in quoted.items())]
    parts += [f"{key}={value}" for key, value in bare.items()]
    return "Digest " + ", ".join(parts)
