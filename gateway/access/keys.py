"""API keys from `DARKROOM_API_KEYS`."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping


class Keys:
    """The keys that may call. Held as hashes; without any, everyone on this machine may."""

    def __init__(self, text: str | None) -> None:
        parts = (part.strip() for part in (text or "").split(","))
        self._digests = tuple(_digest(part) for part in parts if part)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def admits(self, headers: Mapping[str, str]) -> str | None:
        """The id of the key that a request's headers carry, compared in constant time; None where it is none of them.

        The id stands in the ledger, and tells nothing of the key.
        """
        given = presented(headers)
        if given is None:
            return None
        digest = _digest(given)
        # Every key is looked at, so that the time does not tell which one came near.
        known = sum(hmac.compare_digest(digest, known) for known in self._digests) > 0
        return f"key_{hashlib.sha256(b'id:' + digest).hexdigest()[:16]}" if known else None


def presented(headers: Mapping[str, str]) -> str | None:
    """The key in `Authorization: Bearer …` (any case) or `api-key`."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("api-key") or None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
