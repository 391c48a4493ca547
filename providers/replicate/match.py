"""Knowing a prediction again by what was written down before its submit. Pure: the search beside it asks.

An input is written down without its pictures and texts: of those there is only the SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime

from normalization.values import Image, Value
from providers.base import Sent
from providers.http.bodies import Json
from providers.replicate.responses import job_id

# So far may the clocks of Replicate and of this machine be apart.
SKEW_S = 5.0

_PICTURE, _TEXT = "picture:", "text:"


def written(payload: Mapping[str, Value]) -> str:
    """Return what an input is known by, as JSON text."""
    return json.dumps(_reduced(dict(payload)), separators=(",", ":"), sort_keys=True)


def is_it(entry: Mapping[str, Json], sent: Sent, within_s: float) -> bool | None:
    """Say whether a listed prediction is the one that `sent` made; None where that cannot be told.

    It was made at most `within_s` seconds after `sent.at`. Our webhook at it settles the matter; else its input does,
    to the byte of its pictures, for a prediction of the same parameters may be another caller's.
    """
    moment = made_at(entry)
    if moment < sent.at - SKEW_S or moment > sent.at + within_s + SKEW_S:
        return False
    version = sent.upstream.options.get("version")
    named = entry.get("version" if version else "model")
    if isinstance(named, str) and named != (version or sent.upstream.model):
        return False
    address = entry.get("webhook")
    if job_id(entry) and address and address == sent.data.get("webhook"):
        return True
    same = _same(_loads(sent.data.get("input", "")), _reduced(entry.get("input")))
    # The same input under another's webhook may be another's, or ours under an address that was written otherwise.
    whole = job_id(entry) and isinstance(named, str) and not math.isnan(moment) and not address
    return same if whole or same is False else None


def is_like(entry: Mapping[str, Json], sent: Sent) -> bool:
    """Say whether a listed prediction has the input or the webhook that `sent` had, whenever it was made."""
    address = entry.get("webhook")
    if address and address == sent.data.get("webhook"):
        return True
    return _same(_loads(sent.data.get("input", "")), _reduced(entry.get("input"))) is True


def made_at(entry: Mapping[str, Json]) -> float:
    """Return when a prediction was made, in seconds of the wall clock; NaN where it does not say."""
    text = entry.get("created_at")
    try:
        moment = datetime.fromisoformat(text if isinstance(text, str) else "")
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.nan


def _loads(text: str) -> Json:
    try:
        value: Json = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def _reduced(value: Value | Json) -> Json:
    """Return a value with the digests of its pictures and texts in their place."""
    if isinstance(value, Image | bytes):
        return _PICTURE + hashlib.sha256(value.data if isinstance(value, Image) else value).hexdigest()
    if isinstance(value, str):
        return _TEXT + hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
    if isinstance(value, dict):
        return {name: _reduced(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_reduced(item) for item in value]
    return value


def _same(ours: Json, theirs: Json) -> bool | None:
    """Say whether an input that Replicate lists is ours; it may have been filled up with defaults.

    None where one side has what cannot be compared with the other: it was removed, or replaced by an address.
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        pairs = [(value, theirs.get(name)) for name, value in ours.items()]
    elif isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            return False
        pairs = list(zip(ours, theirs, strict=True))
    else:
        return ours == theirs if _kind(ours) == _kind(theirs) != "" else None
    verdicts = [_same(*pair) for pair in pairs]
    return False if False in verdicts else None if None in verdicts else True


def _kind(value: Json) -> str:
    """Return what a leaf may be compared with; "" where that is nothing."""
    if isinstance(value, str):
        return value.partition(":")[0]
    if value is None or isinstance(value, bool):
        return type(value).__name__
    return "number" if isinstance(value, int | float) else ""
