"""The keys that the environment holds: `DARKROOM_API_KEYS`, and the admin's."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.auth.grant import Grant
from gateway.auth.secret import digest

LEAST_LENGTH = 32
"""Characters of a key: of random hexadecimal digits these are 128 bits, and no word that somebody would type."""


class UnusableKey(Exception):
    """What the environment says cannot be taken for API keys. The message names the variable or the file."""


class UnreadableKey(UnusableKey):
    """The file that is to hold a key cannot be read, or is empty."""


class WeakKey(UnusableKey):
    """A key is so short that it can be guessed."""


class Keys:
    """The keys of the environment, held as digests."""

    def __init__(self, text: str | None, admin: str | None = None) -> None:
        parts = (part.strip() for part in (text or "").split(","))
        self._grants = tuple(_grant(part, admin=False) for part in parts if part)
        if admin and admin.strip():
            self._grants += (_grant(admin.strip(), admin=True),)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Keys:
        """Read `DARKROOM_API_KEYS` and `DARKROOM_ADMIN_KEY`, each also as `…_FILE`. Raises UnusableKey."""
        callers, admin = _value(environ, "DARKROOM_API_KEYS"), _value(environ, "DARKROOM_ADMIN_KEY")
        _check_strength("DARKROOM_API_KEYS", (callers or "").split(","))
        _check_strength("DARKROOM_ADMIN_KEY", [admin or ""])
        return cls(callers, admin)

    def __bool__(self) -> bool:
        return bool(self._grants)

    def find(self, key: str) -> Grant | None:
        """The grant of a key; None where it is none of these."""
        given = digest(key)
        # Every key is looked at, so that the time does not tell which one came near. The last counts: the admin's.
        found = None
        for grant in self._grants:
            if hmac.compare_digest(given, grant.digest):
                found = grant
        return found


def presented(headers: Mapping[str, str]) -> str | None:
    """The key in `Authorization: Bearer …` (any case) or `api-key`."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("api-key") or None


def _check_strength(name: str, parts: Sequence[str]) -> None:
    """Raise WeakKey for a key that is too short. The key itself is never told: it may be in use elsewhere."""
    keys = [part.strip() for part in parts if part.strip()]
    for number, key in enumerate(keys, 1):
        if len(key) < LEAST_LENGTH:
            which = f"key {number} of {len(keys)}" if len(keys) > 1 else "the key"
            raise WeakKey(
                f"{name}: {which} has {len(key)} characters, and whoever guesses it spends your money; expected at "
                f"least {LEAST_LENGTH} random ones, such as `openssl rand -hex 32` or "
                "`python3 -c 'import secrets; print(secrets.token_urlsafe(32))'` print"
            )


def _grant(key: str, *, admin: bool) -> Grant:
    found = digest(key)
    number = hashlib.sha256(b"id:" + found).hexdigest()[:16]
    return Grant(id=f"key_{number}", name="admin" if admin else "environment", admin=admin, digest=found)


def _value(environ: Mapping[str, str], name: str) -> str | None:
    path = environ.get(f"{name}_FILE", "").strip()
    if not path:
        return environ.get(name)
    if environ.get(name, "").strip():
        raise UnreadableKey(f"{name} and {name}_FILE are both set: keep one of them")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableKey(f"{name}_FILE: {path} cannot be read ({type(error).__name__})") from None
    if not text.strip():
        raise UnreadableKey(f"{name}_FILE: {path} is empty")
    # One a line is as good as commas between them.
    return ",".join(text.split())
