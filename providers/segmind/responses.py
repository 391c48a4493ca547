"""What Segmind's answers mean: errors, waits, pictures, numbers. Pure; the adapter beside it asks."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

import httpx

from normalization.values import Image, Value
from providers.errors import MAX_COST_MICROS, Blocked, Failed, ProviderError, Rejected, Undecodable, Unusable
from providers.http.bodies import Json, excerpt, leaves, read_json
from providers.http.errors import refusal, retry_after

NAME = "segmind"

# 405 is our mistake, and 410 a model's end: other providers have it. 406 is read by its text.
_STATUSES: Mapping[int, type[ProviderError]] = {405: Failed, 406: Rejected, 410: Failed}
_NO_CREDIT = re.compile(r"(insufficient|not enough|out of) (credit|balance)|spend(ing)? limit", re.IGNORECASE)
# A job that a content check ended is FAILED like any other, and the words are not published.
_POLICY = re.compile(
    r"content (policy|filter|moderation|checker)|moderation|nsfw|\brai\b|responsible ai|safety|sexual|violates",
    re.IGNORECASE,
)
# The published example is «Prompt is Mandatory and must be string».
_INPUT = re.compile(r"\b(mandatory|must be|not one of|out of range|invalid (value|input|type))\b", re.IGNORECASE)
# What follows one of these may be the caller's prompt.
_ECHO = re.compile(r"""[:"'`<{\[(]""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The answer to a v1 job: its images or their addresses, its run time in seconds, its cost in micro-dollars."""

    found: Sequence[str | bytes] = field(repr=False)
    seconds: float | None
    cost: int | None


def check(response: httpx.Response, raw: bytes, answer: Json, payload: Mapping[str, Value]) -> None:
    """Raise what the answer to a submit stands for, other than success."""
    if at(answer, "status") == "FAILED":
        raise failure(answer)
    if response.is_success:
        return
    error = refusal(NAME, response, raw, now=time.time(), statuses=_STATUSES)
    kind, text = type(error), _text(answer)
    # An error may repeat a value: a caller's own words must not put our account to rest.
    ours = text
    for value in payload.values():
        ours = ours.replace(value, "") if isinstance(value, str) and value else ours
    if response.status_code == 406 and _NO_CREDIT.search(ours):
        kind = Unusable
    elif response.status_code in {400, 403, 422} and _POLICY.search(ours):
        kind = Blocked
    message = f"{NAME}: HTTP {response.status_code}"
    raise kind(message, said=_told(text), retry_after=patience(response), code=error.code)


def failure(answer: Json) -> ProviderError:
    """Return the error of a FAILED job. Segmind bills none of them."""
    text = _text(answer)
    kind = Blocked if _POLICY.search(text) else Rejected if _INPUT.search(text) else Failed
    return kind(f"{NAME}: the job failed", said=_told(text), cost=0)


def _text(answer: Json) -> str:
    texts = (at(answer, key) for key in ("error_description", "error", "message", "detail"))
    return next((text for text in texts if isinstance(text, str)), "")


def _told(text: str) -> str:
    """Return what may be shown of an error: its beginning, for the rest may be the input."""
    return excerpt(_ECHO.split(text, maxsplit=1)[0].strip(" ,."))


def patience(response: httpx.Response) -> float | None:
    """Return for how many seconds an answer asks to be left alone.

    Segmind sends no `retry-after` and tells when the window ends, in a form that is not published: read are ISO 8601
    and seconds since 1970.
    """
    now = time.time()
    if (told := retry_after(response, now)) is not None:
        return told
    text = response.headers.get("x-rate-limit-reset-at-utc", "").strip()
    try:
        if text.isdecimal():
            return max(0.0, float(text) - now)
        then = datetime.fromisoformat(text)
        return max(0.0, (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, OverflowError):
        return None


async def decoded(raw: bytes) -> Json:
    """Decode JSON; None where it is none."""
    with contextlib.suppress(Undecodable):
        return await read_json(raw)
    return None


def at(value: Json, *keys: str) -> Json:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def found_in(value: Json) -> list[str | bytes]:
    """Return the pictures in an output: a text, a list, an object with an address, or bytes that were a data URI."""
    return leaves(value, ("url", "image", "images", "output"))


def seconds_of(value: object) -> float | None:
    micros = micros_of(value)
    return None if micros is None else micros / 1_000_000


def micros_of(value: object) -> int | None:
    """Return a number, or a text that is one, in millionths; None for what is none, or is no bill."""
    try:
        micros = Decimal(str(value)) * 1_000_000
        return round(micros) if 0 <= micros < MAX_COST_MICROS else None
    except (InvalidOperation, ValueError, OverflowError):
        return None


def images_in(value: Value) -> Iterator[Image]:
    if isinstance(value, Image):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from images_in(item)


def with_addresses(value: Value, addresses: Iterator[str]) -> Value:
    """Return a value with the next address in place of each picture."""
    if isinstance(value, Image):
        return next(addresses)
    if isinstance(value, list):
        return [with_addresses(item, addresses) for item in value]
    if isinstance(value, dict):
        return {key: with_addresses(item, addresses) for key, item in value.items()}
    return value
