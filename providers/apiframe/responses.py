"""What Apiframe's answers mean: errors, states, pictures, credits. Pure; the adapter beside it asks."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import TypeAlias

import httpx

from providers.base import WebhookEvent
from providers.errors import MAX_COST_MICROS, Blocked, Failed, ProviderError, Throttled, Undecodable, Unknown
from providers.http.bodies import Json, excerpt, leaves, read_json
from providers.http.errors import refusal
from providers.kit.webhooks import is_hex_hmac

NAME = "apiframe"

# 409 is told of a key that was used before: a job is there, and we do not know which.
_STATUSES: Mapping[int, type[ProviderError]] = {405: Failed, 409: Unknown}
_POLICY = re.compile(
    r"content (policy|filter|moderation)|moderation|nsfw|safety|sexual|prohibited content|violates", re.IGNORECASE
)
# What follows one of these may be the caller's prompt.
_ECHO = re.compile(r"""["'`<{\[(]""")

JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CANCELED"})

Answer: TypeAlias = "dict[str, Json]"


def refused(response: httpx.Response, raw: bytes, answer: Json) -> ProviderError:
    error = refusal(NAME, response, raw, now=time.time(), statuses=_STATUSES)
    kind, text = type(error), _text(at(answer, "error"))
    if response.status_code in {400, 403} and _POLICY.search(text):
        kind = Blocked
    elif response.status_code == 503 and error.retry_after is not None:
        # Its queue is down and says for how long.
        kind = Throttled
    details = at(answer, "details")
    lines = [f"{path}: {_text(texts)}" for path, texts in details.items()] if isinstance(details, dict) else []
    told = "; ".join(filter(None, map(_told, [text, *lines[:8]])))
    message = f"{NAME}: HTTP {response.status_code}"
    return kind(message, said=told, retry_after=error.retry_after, code=error.code)


def check(answer: Answer) -> None:
    """Raise for a job that ended without success. Its credits are given back."""
    state, text = state_of(answer), _text(answer.get("error"))
    if state == "FAILED":
        kind = Blocked if _POLICY.search(text) else Failed
        raise kind(f"{NAME}: the job failed", said=_told(text), cost=0)
    if state != "COMPLETED":
        raise Failed(f"{NAME}: the job was cancelled there", cost=0)


def state_of(answer: Json) -> str:
    return _text(at(answer, "status")).upper()


def share_of(answer: Json) -> float | None:
    """Return the share of a job that is done, from 0 to 1; None where it is not told. Told are 0 to 100, or nothing."""
    told = at(answer, "progress")
    if not isinstance(told, int | float) or isinstance(told, bool) or not 0 <= told <= 100:
        return None
    return told / 100


async def heard(headers: Mapping[str, str], body: bytes, key: str) -> WebhookEvent | None:
    """Return what a webhook says; None where it is not signed with our API key, or names no job.

    The secret is the SHA-256 of the key: its bytes for the official client, its hex digits for an application that
    receives them in production. Both are taken, as nobody but Apiframe and us can make either.
    """
    told, secret = headers.get("x-webhook-signature", ""), hashlib.sha256(key.encode())
    if not any(is_hex_hmac(told, form, body) for form in (secret.digest(), secret.hexdigest().encode())):
        return None
    answer = await decoded(body)
    name = at(answer, "jobId")
    if not isinstance(name, str) or not JOB_ID.fullmatch(name):
        return None
    return WebhookEvent(id=name, progress=share_of(answer), ended=not state_of(answer) or state_of(answer) in ENDED)


def cost_of(answer: Json, usd_per_credit: str) -> int | None:
    """Return what a job cost in micro-dollars, None where its credits or their price are not known."""
    spent = at(answer, "creditCost")
    if not isinstance(spent, int | float):
        return None
    with contextlib.suppress(InvalidOperation, ValueError, OverflowError):
        micros = Decimal(str(spent)) * Decimal(usd_per_credit) * 1_000_000
        return round(micros) if 0 <= micros < MAX_COST_MICROS else None
    return None


def found_in(value: Json) -> list[str | bytes]:
    """Return the pictures of a result: `{"images": [address]}` in the specification, a bare address in older pages."""
    return leaves(value, ("images", "image", "url", "urls"), _is_picture)


def _is_picture(leaf: str | bytes) -> bool:
    return bool(leaf) if isinstance(leaf, bytes) else leaf.startswith(("https://", "http://"))


def _text(value: Json) -> str:
    if isinstance(value, list):
        return ", ".join(filter(None, map(_text, value[:4])))
    return value if isinstance(value, str) else ""


def _told(text: str) -> str:
    """Return what may be shown of an error: its beginning, for the rest may be the input."""
    return excerpt(_ECHO.split(text, maxsplit=1)[0].strip(" ,.:"))


async def decoded(raw: bytes) -> Json:
    """Decode JSON; None where it is none."""
    with contextlib.suppress(Undecodable):
        return await read_json(raw)
    return None


def at(value: Json, key: str) -> Json:
    return value.get(key) if isinstance(value, dict) else None
