"""Whether a webhook comes from fal: an ED25519 signature, by one of the keys that fal publishes.

Signed are request id, user id, time and the digest of the body, joined by newlines (fal.ai/docs, webhooks; read in
November 2026). fal signs for all of its users with the same keys: that a job is ours, only asking for it tells.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
import time
from collections.abc import Mapping, Sequence

from providers.clock import CLOCK, Clock
from providers.errors import ProviderError
from providers.fal.api import FalApi
from providers.fal.responses import at, is_request_id
from providers.http.bodies import Json
from providers.http.errors import NoAnswer

_PREFIX = "x-fal-webhook-"
_LATE_S = 300
_KEY_BYTES = 32
_SIGNATURE = re.compile(r"[0-9a-fA-F]{128}")
_SECONDS = re.compile(r"[0-9]{1,12}")
# Above this, a digest is worth a hop to a thread.
_INLINE_BYTES = 1_000_000
# fal's documents ask for one fetch a day at least.
_KEEP_S = 23 * 3600.0
# Whoever sends us forged webhooks cannot make us ask fal more often than this.
_ASK_EVERY_S = 60.0
_JWKS_BYTES = 100_000
_MOST_KEYS = 16


class FalSignatures:
    """The keys at `url`, fetched when the first webhook comes and kept for less than a day.

    They are fetched again, once a minute at most, when none of them made a signature.
    """

    def __init__(self, api: FalApi, url: str, *, timeout_s: float, clock: Clock = CLOCK) -> None:
        self._api = api
        self._url = url
        self._timeout_s = timeout_s
        self._clock = clock
        self._keys: tuple[bytes, ...] = ()
        self._fetched_at = self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    async def request(self, headers: Mapping[str, str], body: bytes) -> str | None:
        """Return the id of the request that a webhook reports; None where it is not surely from fal and of now."""
        request, message = headers.get(f"{_PREFIX}request-id", ""), await signed(headers, body, now=time.time())
        signature = headers.get(f"{_PREFIX}signature", "")
        if message is None or not _SIGNATURE.fullmatch(signature) or not is_request_id(request):
            return None
        made = bytes.fromhex(signature)
        if self._clock.now() - self._fetched_at > _KEEP_S:
            self._keys = ()
        keys = self._keys
        if verified(keys, message, made):
            return request
        fresh = await self._fresh(keys)
        return request if fresh != keys and verified(fresh, message, made) else None

    async def _fresh(self, seen: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Return the keys as they are now, as far as that may be asked; `seen` are those that did not help."""
        async with self._asking:
            if self._keys == seen and self._clock.now() - self._asked_at >= _ASK_EVERY_S:
                self._asked_at = self._clock.now()
                if keys := await self._fetch():
                    self._keys, self._fetched_at = keys, self._clock.now()
            return self._keys

    async def _fetch(self) -> tuple[bytes, ...]:
        try:
            response, answer = await self._api.ask(
                "GET", self._url, timeout_s=self._timeout_s, cap=_JWKS_BYTES, signed=False
            )
        except (NoAnswer, ProviderError):
            return ()
        return public_keys(answer) if response.is_success else ()


async def signed(headers: Mapping[str, str], body: bytes, *, now: float) -> bytes | None:
    """Return what the signature of a webhook is over; None where it says no time, or one too far from `now`.

    `now` is in seconds of the wall clock.
    """
    parts = [headers.get(f"{_PREFIX}{name}", "") for name in ("request-id", "user-id", "timestamp")]
    moment = parts[2]
    if not all(parts) or not _SECONDS.fullmatch(moment) or abs(now - int(moment)) > _LATE_S:
        return None
    # The message is taken apart by its newlines.
    if any("\n" in part for part in parts):
        return None
    made = hashlib.sha256(body) if len(body) < _INLINE_BYTES else await asyncio.to_thread(hashlib.sha256, body)
    return "\n".join([*parts, made.hexdigest()]).encode("utf-8", "surrogateescape")


def public_keys(answer: Json) -> tuple[bytes, ...]:
    """Return the raw ED25519 keys of a JWKS document, without what is none."""
    keys = at(answer, "keys")
    found = [at(key, "x") for key in keys[:_MOST_KEYS]] if isinstance(keys, list) else []
    raw = [_raw(text) for text in found if isinstance(text, str)]
    return tuple(key for key in raw if len(key) == _KEY_BYTES)


def _raw(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""


def verified(keys: Sequence[bytes], message: bytes, signature: bytes) -> bool:
    """Say whether one of the keys made this signature."""
    # Most gateways never hear a webhook.
    from nacl.exceptions import BadSignatureError
    from nacl.signing import VerifyKey

    for key in keys:
        try:
            VerifyKey(key).verify(message, signature)
        except BadSignatureError:
            continue
        return True
    return False
