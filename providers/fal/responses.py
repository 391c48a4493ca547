"""What fal's answers say: where a job is, why it failed, where its pictures are, what it cost.

Sources: fal.ai/docs (queue, errors, request errors, common parameters; read in November 2026) and the sources of
fal-client 1.0.3, which is what fal's servers are known to work with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import TypeAlias, TypeGuard

import httpx

from providers.errors import (
    MAX_COST_MICROS,
    Blocked,
    Expired,
    Failed,
    ProviderError,
    Rejected,
    Throttled,
    Unknown,
    Unusable,
)
from providers.http.bodies import Json, excerpt
from providers.http.client import beneath
from providers.http.errors import STATUSES, retry_after

NAME = "fal"

# A picture of a result: its bytes, or its address.
Found: TypeAlias = "str | bytes"

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,99}")
_REQUEST_ID_KEY = re.compile(rb'"request_id"\s*:\s*"([A-Za-z0-9][A-Za-z0-9_-]{7,99})"')
# In front of owner and app; without one of these an endpoint id begins with the owner (fal-client: APP_NAMESPACES).
_NAMESPACES = frozenset({"workflows", "comfy"})
_LONGEST_ADDRESS = 2048
# Longer than any job; a number of a thousand digits cannot even be a float.
_LONGEST_S = 1e9

# `type` of a model's error and `error_type` of fal's own; what is not here goes by its status.
_KINDS: Mapping[str, type[ProviderError]] = {
    "content_policy_violation": Blocked,
    "no_media_generated": Failed,
    "internal_server_error": Failed,
    "generation_timeout": Failed,
    "downstream_service_error": Failed,
    "downstream_service_unavailable": Failed,
    # The time to start that we gave it passed, or we cancelled it.
    "request_timeout": Expired,
    "client_cancelled": Expired,
    "client_disconnected": Failed,
    "startup_timeout": Failed,
    "runner_scheduling_failure": Failed,
    "runner_connection_timeout": Failed,
    "runner_disconnected": Failed,
    "runner_connection_refused": Failed,
    "runner_connection_error": Failed,
    "runner_incomplete_response": Failed,
    "runner_server_error": Failed,
    "internal_error": Failed,
    "bad_request": Rejected,
    "concurrent_requests_limit": Throttled,
}
_POLICY = re.compile(r"content (policy|checker)|nsfw|moderation|safety (checker|filter|system)", re.IGNORECASE)
_NO_CREDIT = re.compile(r"balance|credit|locked", re.IGNORECASE)
# What follows one of these may be the input: an address, a data URI, a prompt.
_ECHO = re.compile(r"""[:"'`<{\[(]""")
# These name what would have been right.
_HARMLESS = frozenset({"literal_error", "enum", "one_of"})


def at(value: Json, *keys: str) -> Json:
    """Return what lies under `keys` in nested objects, None where there is no such thing."""
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def request_id(answer: Json) -> str | None:
    """Return the id that an answer to a submit gives the job; None where it is no such answer."""
    found = at(answer, "request_id")
    return found if isinstance(found, str) and is_request_id(found) else None


def is_request_id(text: str) -> bool:
    """Whether a text can be a request id, and be put into an address as it is."""
    return _REQUEST_ID.fullmatch(text) is not None


def torn_request_id(body: bytes) -> str | None:
    """Return the job's id from an answer that is no JSON any more."""
    found = _REQUEST_ID_KEY.search(body)
    return found[1].decode() if found else None


def addresses(queue_url: str, model: str, job: str, given: Mapping[str, object]) -> dict[str, str]:
    """Return `status_url`, `response_url` and `cancel_url` of a job.

    What fal has `given` counts if it is at `queue_url`: our key goes there. Else they are built the way
    fal-client builds them: from owner and app alone, for a submit's sub-path is no part of them.
    """
    parts = model.split("/")
    app = "/".join(parts[: 3 if parts[0] in _NAMESPACES else 2])
    base = f"{queue_url}/{app}/requests/{job}"
    built = {"status_url": f"{base}/status", "response_url": base, "cancel_url": f"{base}/cancel"}
    return {name: _at_origin(given.get(name), queue_url) or url for name, url in built.items()}


def _at_origin(address: object, base_url: str) -> str | None:
    if not isinstance(address, str) or len(address) > _LONGEST_ADDRESS:
        return None
    return address if beneath(address, base_url) else None


def failure(response: httpx.Response, answer: Json, *, now: float, ended: bool, usd: str = "") -> ProviderError:
    """Return the error that an answer other than success stands for.

    `answer` is its body, None where that is no JSON. `ended` is true where a job's result was asked for, false for the
    answer to a submit. `now` is in seconds of the wall clock, `usd` the price of a unit in dollars, "" where that is
    not known. The message has nothing of the input, which fal repeats in its errors: a picture as a data URI, a signed
    address, a prompt.
    """
    status = response.status_code
    kind = _kind(response, answer, ended=ended)
    text = "our account cannot be used" if kind is Unusable else reason(answer)
    if kind is Unusable and _NO_CREDIT.search(reason(answer, whole=True)):
        text = "the account is locked or out of credit"
    what = f"{NAME}: the job failed with HTTP {status}" if ended else f"{NAME}: HTTP {status}"
    error = kind(
        what, said=text, retry_after=retry_after(response, now), code=str(status), cost=_bill(response, answer, usd)
    )
    if ended and error.cost is None and error.billed is False:
        # fal bills an input that its model refuses, or not, and did not say (fal.ai/docs, FAQ).
        error.billed = None
    return error


def _bill(response: httpx.Response, answer: Json, usd: str) -> int | None:
    told = cost(response.headers, usd)
    # A job whose time to start passed never ran.
    return 0 if told is None and "request_timeout" in error_types(answer) else told


def _kind(response: httpx.Response, answer: Json, *, ended: bool) -> type[ProviderError]:
    status = response.status_code
    named = error_types(answer) | {response.headers.get("x-fal-error-type", "").lower()}
    kinds = [_KINDS[name] for name in sorted(named) if name in _KINDS]
    if Blocked in kinds or (status in {400, 403, 422} and _POLICY.search(reason(answer))):
        return Blocked
    if kinds:
        return kinds[0]
    if status == 500 and answer is None and not ended:
        return Unknown
    if kind := STATUSES.get(status):
        return kind
    if 400 <= status < 500:
        return Rejected
    return Failed if ended else Unknown


def error_types(answer: Json) -> set[str]:
    """Return the machine-readable names of an error: `error_type`, and `type` of each item of a list `detail`."""
    names = [at(answer, "error_type"), *(at(item, "type") for item in _items(answer))]
    return {name.lower() for name in names if isinstance(name, str)}


def reason(answer: Json, *, whole: bool = False) -> str:
    """Return what may be told of an error: of a list `detail` the places and messages, of a text its beginning.

    `whole` gives the text in full, for looking into it and not for showing it.
    """
    detail = at(answer, "detail")
    text = detail if isinstance(detail, str) else at(answer, "error")
    if isinstance(text, str):
        return text if whole else excerpt(_before_echo(text))
    return excerpt("; ".join(filter(None, map(_line, _items(answer)))))


def _items(answer: Json) -> list[Json]:
    detail = at(answer, "detail")
    if isinstance(detail, dict):
        return [detail]
    return detail[:8] if isinstance(detail, list) else []


def _line(item: Json) -> str:
    message, kind, loc = at(item, "msg"), at(item, "type"), at(item, "loc")
    text = message if isinstance(message, str) else ""
    if not isinstance(kind, str) or kind not in _HARMLESS:
        text = _before_echo(text)
    text = text or (kind if isinstance(kind, str) else "")
    where = ".".join(str(part) for part in loc if part != "body") if isinstance(loc, list) else ""
    return f"{where}: {text}" if where and text else text


def _before_echo(text: str) -> str:
    return _ECHO.split(text, maxsplit=1)[0].strip(" ,.")


def images(answer: Json) -> list[Found]:
    """Return the pictures of a result in order: `image` as an object or a text, `images` as a list, or a bare text."""
    if isinstance(answer, dict):
        several = answer.get("images")
        items = several if isinstance(several, list) and several else [answer.get("image", answer.get("url"))]
    else:
        items = answer if isinstance(answer, list) else [answer]
    return list(_found(items))


def _found(items: list[Json]) -> Iterator[Found]:
    for item in items:
        value = item.get("url") if isinstance(item, dict) else item
        if value and (isinstance(value, bytes) or _is_address(value)):
            yield value


def _is_address(value: Json) -> TypeGuard[str]:
    return isinstance(value, str) and value.startswith(("https://", "http://"))


def seconds(value: Json) -> float | None:
    """Return a run time in seconds, None where it is none."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < _LONGEST_S:
        return None
    return float(value)


def cost(headers: httpx.Headers, usd_per_unit: str) -> int | None:
    """Return the bill in micro-dollars: the units that fal billed, at a price in dollars; None where one is missing.

    `x-fal-billable-units` is a fixed-point number with up to 8 decimals. No units cost nothing at any price.
    """
    try:
        units = Decimal(headers.get("x-fal-billable-units", ""))
        micros = units * Decimal(usd_per_unit) * 1_000_000 if units else units
        return int(micros.to_integral_value()) if 0 <= micros < MAX_COST_MICROS else None
    except (InvalidOperation, OverflowError, ValueError):
        return None
