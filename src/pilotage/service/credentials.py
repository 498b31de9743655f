"""The service's own keys, and the pilot token: an Ed25519 JWT that says which pilot this is, for a few minutes.

User tokens and one-time secrets are random and live as digests in storage; job tokens belong to the engine.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import warnings
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pilotage.service.errors import unauthenticated

if TYPE_CHECKING:
    from joserfc.jwk import OKPKey

ALGORITHM = "Ed25519"
"""The JOSE name of RFC 9864; the older "EdDSA" of RFC 8037 does not say which curve."""
ISSUER = "pilotage"
CACHED = 4096


@dataclass(frozen=True, slots=True)
class Keys:
    """What only the service knows: Ed25519 seeds (the first signs, all verify) and the engine's key for job tokens."""

    pilot: tuple[bytes, ...] = field(repr=False)
    engine: bytes = field(repr=False)


def load(file: Path) -> Keys:
    """The keys in ``file`` (JSON, mode 0600), made at the first start. Raises ValueError when the file is damaged."""
    try:
        text = file.read_text()
    except FileNotFoundError:
        return _make(file)
    try:
        found = json.loads(text)
        keys = Keys(tuple(base64.b64decode(seed) for seed in found["pilot"]), base64.b64decode(found["engine"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the key file {file} is damaged: {error}") from error
    if not keys.pilot or any(len(seed) != 32 for seed in (*keys.pilot, keys.engine)):
        raise ValueError(f"the key file {file} is damaged: a key does not have 32 bytes")
    return keys


def _make(file: Path) -> Keys:
    keys = Keys((secrets.token_bytes(32),), secrets.token_bytes(32))
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        encoded = [base64.b64encode(key).decode() for key in (*keys.pilot, keys.engine)]
        json.dump({"pilot": encoded[:-1], "engine": encoded[-1]}, out)
        out.flush()
        os.fsync(out.fileno())
    try:
        os.link(draft, file)  # the first of two that start at once wins
    except FileExistsError:
        return load(file)
    finally:
        draft.unlink()
    return keys


@dataclass(frozen=True, slots=True)
class PilotClaims:
    """What a pilot token says."""

    stamp: str
    vo: str
    issued: float
    expires: float

    def old(self, now: float) -> bool:
        """Whether less than half of its life is left: time for a new one."""
        return now > (self.issued + self.expires) / 2


class PilotTokens:
    """Makes and checks pilot tokens. A token that was verified once is remembered, so a sync costs no signature."""

    def __init__(self, keys: Keys, seconds: int) -> None:
        self._seeds = keys.pilot
        self._keys: list[OKPKey] = []
        self._known: OrderedDict[str, PilotClaims] = OrderedDict()
        self.seconds = seconds

    @property
    def warmed(self) -> bool:
        """Whether the library is loaded."""
        return bool(self._keys)

    def warm(self) -> None:
        """Loads the library (0.1 s), which a caller may do in a thread while nobody waits for it."""
        if self._keys:
            return
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from joserfc import jwt  # noqa: F401
        from joserfc.jwk import OKPKey

        self._keys = [OKPKey.import_key(Ed25519PrivateKey.from_private_bytes(seed)) for seed in self._seeds]

    def issue(self, stamp: str, vo: str, now: float) -> str:
        """A token for the pilot ``stamp``, good for `seconds` from ``now``."""
        from joserfc import jwt

        self.warm()
        claims = {"iss": ISSUER, "sub": stamp, "vo": vo, "iat": round(now, 3), "exp": round(now + self.seconds, 3)}
        return jwt.encode({"alg": ALGORITHM, "typ": "JWT"}, claims, self._keys[0], algorithms=[ALGORITHM])

    def verify(self, token: str, now: float) -> PilotClaims:
        """What ``token`` says. Raises ApiError 401: ``token_invalid`` when forged, ``token_expired`` when too old."""
        claims = self._known.get(token)
        if claims is None:
            claims = self._decode(token)
            self._known[token] = claims
            if len(self._known) > CACHED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(token)
        if now >= claims.expires:
            raise unauthenticated("token_expired", "This pilot token has expired; register again.")
        return claims

    def _decode(self, token: str) -> PilotClaims:
        from joserfc import jwt
        from joserfc.errors import JoseError

        self.warm()
        for key in self._keys:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found: dict[str, Any] = jwt.decode(token, key, algorithms=[ALGORITHM]).claims
                if found["iss"] == ISSUER:
                    return PilotClaims(str(found["sub"]), str(found["vo"]), float(found["iat"]), float(found["exp"]))
            except (JoseError, ValueError, KeyError, TypeError):
                continue
        raise unauthenticated("token_invalid", "This is not a pilot token of this service.")
