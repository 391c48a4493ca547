"""The keys that the environment holds: `DARKROOM_API_KEYS`, and the admin's."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path

from gateway.access.grant import Grant
from gateway.access.secret import digest


class UnreadableKey(Exception):
    """The file that is to hold a key cannot be read, or is empty. The message names it."""


class Keys:
    """The keys of the environment, held as digests."""

    def __init__(self, text: str | None, admin: str | None = None) -> None:
        parts = (part.strip() for part in (text or "").split(","))
        self._grants = tuple(_grant(part, admin=False) for part in parts if part)
        if admin and admin.strip():
            self._grants += (_grant(admin.strip(), admin=True),)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Keys:
        """Read `DARKROOM_API_KEYS` and `DARKROOM_ADMIN_KEY`, each also as `…_FILE`. Raises UnreadableKey."""
        return cls(_value(environ, "DARKROOM_API_KEYS"), _value(environ, "DARKROOM_ADMIN_KEY"))

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
