"""Keys as text: `dr_`, the id by which a key is looked up, and 256 bits that nobody guesses."""

from __future__ import annotations

import hashlib
import re
import secrets

_KEY = re.compile(r"dr_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")


def draw() -> tuple[str, str]:
    """A new key's id, and the key itself: shown once, and kept nowhere."""
    number = secrets.token_hex(8)
    return f"key_{number}", f"dr_{number}_{secrets.token_urlsafe(32)}"


def id_of(key: str) -> str | None:
    """The id that a key names; None for what is no key of ours."""
    match = _KEY.fullmatch(key)
    return f"key_{match[1]}" if match else None


def digest(key: str) -> bytes:
    """What is kept of a key. Its 256 random bits need no slow hash."""
    return hashlib.sha256(key.encode()).digest()
