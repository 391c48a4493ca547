"""What lists have in common: pages, and the words that say which entries are meant."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from gateway.http.errors import invalid
from gateway.ledger.records import STATES

_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")
ID_PATTERN = "[A-Za-z0-9_-]{1,64}"
LONGEST_PAGE = 100
_ID = re.compile(ID_PATTERN)
_LONGEST = 256


def listed(data: Sequence[Mapping[str, Any]], *, more: bool) -> dict[str, Any]:
    """A page of a list; `next` is what `after` takes for the following one."""
    return {"object": "list", "data": data, "has_more": more, "next": data[-1]["id"] if more and data else None}


def limit_of(query: Mapping[str, str]) -> int:
    """How many entries a page has. Raises ApiError 400."""
    text = query.get("limit", "20")
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= LONGEST_PAGE:
        raise invalid("limit", f"Invalid 'limit': expected a number from 1 to {LONGEST_PAGE}.")
    return int(text)


def after_of(query: Mapping[str, str]) -> str | None:
    """The id of the entry that a page goes on after. Raises ApiError 400."""
    text = query.get("after")
    if text is not None and not is_id(text):
        raise invalid("after", "Invalid 'after': expected the id of an entry of this list.")
    return text


def state_of(query: Mapping[str, str]) -> str | None:
    """A job's state as a filter. Raises ApiError 400."""
    return one_of(query, "status", STATES)


def one_of(query: Mapping[str, str], name: str, known: Collection[str]) -> str | None:
    """One of some words as a filter. Raises ApiError 400 for another one, which would find nothing."""
    text = query.get(name)
    if text is not None and text not in known:
        raise invalid(name, f"Invalid '{name}': expected one of {', '.join(known)}.")
    return text


def word_of(query: Mapping[str, str], name: str) -> str | None:
    """A name as a filter. Raises ApiError 400 for what no database could look for."""
    text = query.get(name)
    if text is not None and (len(text) > _LONGEST or not text.isprintable()):
        raise invalid(name, f"Invalid '{name}': expected a name.")
    return text


def time_of(query: Mapping[str, str], name: str) -> float | None:
    """A time in seconds since the epoch, from such a number or ISO 8601 (UTC unless it says otherwise). Raises 400."""
    text = query.get(name)
    if text is None:
        return None
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        message = f"Invalid '{name}': expected seconds since the epoch, or a time such as 2026-01-31T12:00:00Z."
        raise invalid(name, message) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def is_id(text: str) -> bool:
    """Whether a text could be one of our ids at all."""
    return _ID.fullmatch(text) is not None
