"""Whether a webhook is from who holds the secret. Nothing here raises for what a stranger may send."""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field

# How old a message may be, or from the future: what Standard Webhooks and its libraries take.
_TOLERANCE_S = 300.0
_SECONDS = re.compile(r"[0-9]{1,12}")
_PREFIX = "whsec_"


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardWebhook:
    """A message with its signatures by the scheme of Standard Webhooks 1.0 (standardwebhooks.com)."""

    content: bytes = field(repr=False)
    signatures: tuple[bytes, ...] = field(repr=False)

    def is_from(self, secret: str) -> bool:
        """Say whether one of the signatures was made with this secret (`whsec_` and base64)."""
        try:
            key = b64decode(secret.removeprefix(_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            return False
        made = b64encode(hmac.digest(key, self.content, "sha256"))
        return bool(key) and any(hmac.compare_digest(made, told) for told in self.signatures)


def standard_webhook(headers: Mapping[str, str], body: bytes, *, now: float) -> StandardWebhook | None:
    """Read a message whose time is within 300 seconds of `now` (wall clock); None where it is no such message.

    Header names are in lower case.
    """
    name, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    told = [item.partition(",") for item in headers.get("webhook-signature", "").split()]
    signatures = tuple(text.encode() for version, _, text in told if version == "v1" and text)
    if not name or not signatures or not _SECONDS.fullmatch(at) or abs(now - int(at)) > _TOLERANCE_S:
        return None
    return StandardWebhook(content=f"{name}.{at}.".encode() + body, signatures=signatures)


def is_hex_hmac(told: str, key: bytes, body: bytes) -> bool:
    """Say whether `told` is the HMAC-SHA256 of a body, as hex digits after an optional `sha256=`."""
    made = hmac.new(key, body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(made.encode(), told.strip().removeprefix("sha256=").lower().encode())
