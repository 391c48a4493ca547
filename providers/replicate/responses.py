"""What Replicate's answers mean: refusals of a submit, the state of a prediction, what its output holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

import httpx

from providers.errors import Blocked, Failed, ProviderError, Rejected, Throttled, Unknown
from providers.http.bodies import Json, excerpt
from providers.http.errors import refusal as plain_refusal

NAME = "replicate"
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")

# https://replicate.com/docs/topics/predictions/lifecycle; a word that is not among them is not an end.
ENDED = frozenset({"succeeded", "failed", "canceled", "aborted"})

_SOON = re.compile(r"resets? in ~?(\d{1,6}(?:\.\d+)?) ?s")
# E005 is what the hosted models of several makers say; "NSFW content detected" is the text of the Stable Diffusion
# models of Replicate's own hand.
_POLICY = re.compile(r"\bE005\b|flagged as sensitive|nsfw content|content (policy|moderation)", re.IGNORECASE)
_MOST_PICTURES = 32
_MOST = 1e9


def refusal(response: httpx.Response, body: bytes, *, now: float) -> ProviderError:
    """Return the error that the answer to a submit stands for. `now` is in seconds of the wall clock."""
    # A 500 may come after the prediction was made: unlike other providers, Replicate does not say.
    error = plain_refusal(NAME, response, body, now=now, statuses={500: Unknown})
    told = _loads(body)
    if isinstance(error, Throttled) and error.retry_after is None:
        error.retry_after = _retry_after(told)
    if isinstance(error, Rejected):
        if str(told.get("title", "")).startswith("Invalid version"):
            # Our table names a version that is not there: no input of the caller could mend that.
            return Failed(error.told, said=error.said, code=error.code)
        if reasons := _invalid_fields(told):
            return Rejected(error.told, said=reasons, code=error.code)
    return error


def _loads(body: bytes) -> dict[str, object]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _retry_after(told: Mapping[str, object]) -> float | None:
    """Documented is only a sentence ("Your rate limit resets in ~30s."); a number has been seen beside it."""
    if (seconds := number(told.get("retry_after"))) is not None:
        return seconds
    found = _SOON.search(str(told.get("detail", "")))
    return float(found[1]) if found else None


def _invalid_fields(told: Mapping[str, object]) -> str:
    """Return the sentences of a failed input validation, which name the parameters."""
    fields = told.get("invalid_fields")
    if not isinstance(fields, list):
        return ""
    texts = (field.get("description") for field in fields[:8] if isinstance(field, dict))
    return excerpt("; ".join(text for text in texts if isinstance(text, str)))


def failure(prediction: Mapping[str, Json], cost: int | None) -> ProviderError:
    """Return the error that an ended prediction other than a succeeded one stands for; `cost` is in micro-dollars."""
    if prediction.get("status") != "failed":
        # By somebody else, or at its own deadline; "aborted" where it had not begun yet.
        word = "aborted" if prediction.get("status") == "aborted" else "canceled"
        return Failed(f"{NAME}: the job was {word}", cost=cost)
    reason = prediction.get("error")
    text = reason if isinstance(reason, str) else ""
    if _POLICY.search(text):
        return Blocked(f"{NAME}: its content policy refused the job", said=excerpt(text), cost=cost)
    return Failed(f"{NAME}: the job failed", said=excerpt(text), cost=cost)


def cost_of(prediction: Mapping[str, Json], usd_per_second: str) -> int | None:
    """Return the bill in micro-dollars; None where the seconds or their price ("" for none) are not known.

    Billed are the seconds that ran, whatever came of them. A job that was stopped before it began is free.
    """
    if prediction.get("status") == "aborted":
        return 0
    seconds = predict_time(prediction)
    return None if seconds is None or not usd_per_second else round(seconds * float(usd_per_second) * 1_000_000)


def images(output: Json) -> list[bytes | str]:
    """Return what an output holds: bytes that came inside of it, and addresses. One, a list, or an object of them."""
    found = []
    for leaf in _leaves(output):
        if isinstance(leaf, bytes) or leaf.lower().startswith(("https:", "http:", "data:")):
            found.append(leaf)
        if len(found) == _MOST_PICTURES:
            break
    return found


def _leaves(value: Json, depth: int = 0) -> Iterator[bytes | str]:
    if isinstance(value, bytes | str):
        yield value
    elif isinstance(value, list | dict) and depth < 4:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item, depth + 1)


def predict_time(prediction: Mapping[str, Json]) -> float | None:
    """Return the seconds that Replicate bills; None where they are not told (yet)."""
    metrics = prediction.get("metrics")
    return number(metrics.get("predict_time")) if isinstance(metrics, dict) else None


def number(value: object) -> float | None:
    """Return a number that is not negative, nor out of all proportion, as such; None for everything else."""
    return (
        float(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MOST else None
    )


def job_id(prediction: Mapping[str, Json]) -> str:
    """Return the id of a prediction; "" where it has none that may stand in an address."""
    name = prediction.get("id")
    return name if isinstance(name, str) and _ID.fullmatch(name) else ""
