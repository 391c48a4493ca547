"""The addresses of the API: prefixes, typed path and query parameters with their schemas, and pages of a list.

The parsers raise ValueError with what was expected, which becomes a 400 that names the parameter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias

from fastapi import Path, Query
from pydantic import BeforeValidator, WithJsonSchema

from gateway.http.headers import parse_flag
from gateway.ledger.records import STATES

_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")
_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")
ID_PATTERN = "[A-Za-z0-9_-]{1,64}"
_ID = re.compile(ID_PATTERN)
MAX_PAGE = 100
MAX_WAIT_S = 120
_MAX_TEXT = 256


PREFIXES = ("/openai/v1", "/v1")
"""OpenAI's paths are served with and without its own part of the address."""


def listed(data: Sequence[Mapping[str, Any]], *, more: bool) -> dict[str, Any]:
    """A page of a list; `next` is the value of `after` for the following page."""
    return {"object": "list", "data": data, "has_more": more, "next": data[-1]["id"] if more and data else None}


def is_id(text: str) -> bool:
    """Whether a text has the form of an id."""
    return _ID.fullmatch(text) is not None


def one_of(text: str, known: Collection[str]) -> str:
    """One of some words. Raises ValueError for another one, which would match nothing."""
    if text not in known:
        raise ValueError(f"expected one of {', '.join(known)}")
    return text


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_PAGE:
        raise ValueError(f"expected a number from 1 to {MAX_PAGE}")
    return int(text)


def _after(text: str) -> str:
    if not is_id(text):
        raise ValueError("expected the id of an entry of this list")
    return text


def _name(text: str) -> str:
    # No database could search for anything else.
    if len(text) > _MAX_TEXT or not text.isprintable():
        raise ValueError("expected a name")
    return text


def _time(text: str) -> float:
    """A time in seconds since the epoch, from such a number or ISO 8601 (UTC unless it states an offset)."""
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("expected seconds since the epoch, or a time such as 2026-01-31T12:00:00Z") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _seconds(text: str) -> float:
    if not _NUMBER.fullmatch(text) or float(text) > MAX_WAIT_S:
        raise ValueError(f"expected a number of seconds up to {MAX_WAIT_S}")
    return float(text)


def _state(text: str) -> str:
    return one_of(text, STATES)


def _text(parse: Callable[[str], Any], **schema: Any) -> tuple[BeforeValidator, WithJsonSchema]:
    """How a parameter is read, and the schema of its text."""
    return BeforeValidator(parse), WithJsonSchema({"type": "string", **schema})


_PAST = {"examples": ["2026-01-31T12:00:00Z"]}

ObjectId: TypeAlias = Annotated[
    str, Path(alias="id", description="The object's id.", json_schema_extra={"pattern": f"^{ID_PATTERN}$"})
]
"""An id in a path. It is not checked there: one of another form is not found."""
Flag: TypeAlias = Annotated[bool, BeforeValidator(parse_flag)]
"""True or false; each use adds its Query."""
Limit: TypeAlias = Annotated[
    int, BeforeValidator(_limit), Query(ge=1, le=MAX_PAGE, description="The number of entries on a page.")
]
After: TypeAlias = Annotated[
    str | None,
    *_text(_after, pattern=f"^{ID_PATTERN}$"),
    Query(description="The id of the last entry of the previous page."),
]
Wait: TypeAlias = Annotated[
    float,
    BeforeValidator(_seconds),
    Query(ge=0, le=MAX_WAIT_S, description="Answer once the job has ended, or after this many seconds."),
]
ModelFilter: TypeAlias = Annotated[str | None, *_text(_name), Query(alias="model", description="Only of this model.")]
StateFilter: TypeAlias = Annotated[
    str | None, *_text(_state, enum=list(STATES)), Query(alias="status", description="Only in this state.")
]
ProviderFilter: TypeAlias = Annotated[
    str | None, *_text(_name), Query(alias="provider", description="Only those that this provider worked on.")
]
KeyFilter: TypeAlias = Annotated[
    str | None, *_text(_name), Query(alias="key", description="Only those of the API key with this id.")
]
CreatedAfter: TypeAlias = Annotated[
    float | None,
    *_text(_time, **_PAST),
    Query(description="Only those created at this time or later: seconds since the epoch, or ISO 8601."),
]
CreatedBefore: TypeAlias = Annotated[
    float | None,
    *_text(_time, **_PAST),
    Query(description="Only those created before this time: seconds since the epoch, or ISO 8601."),
]
