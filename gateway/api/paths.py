"""The addresses of the API: prefixes, typed path and query parameters, and what a route states about its answers.

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
_ID_PATTERN = "[A-Za-z0-9_-]{1,64}"
_ID = re.compile(_ID_PATTERN)
_MAX_PAGE = 100
_MAX_WAIT_S = 120
_MAX_TEXT = 256


PREFIXES = ("/openai/v1", "/v1")
"""OpenAI's paths are served with and without its own part of the address."""


def is_id(text: str) -> bool:
    """Whether a text has the form of an id."""
    return _ID.fullmatch(text) is not None


def one_of(text: str, known: Collection[str]) -> str:
    """One of some words. Raises ValueError for another one, which would match nothing."""
    if text not in known:
        raise ValueError(f"expected one of {', '.join(known)}")
    return text


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _MAX_PAGE:
        raise ValueError(f"expected a number from 1 to {_MAX_PAGE}")
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
    if not _NUMBER.fullmatch(text) or float(text) > _MAX_WAIT_S:
        raise ValueError(f"expected a number of seconds up to {_MAX_WAIT_S}")
    return float(text)


def _state(text: str) -> str:
    return one_of(text, STATES)


def _text(parse: Callable[[str], Any], **schema: Any) -> tuple[BeforeValidator, WithJsonSchema]:
    """How a parameter is read, and the schema of its text."""
    return BeforeValidator(parse), WithJsonSchema({"type": "string", **schema})


_PAST = {"examples": ["2026-01-31T12:00:00Z"]}

ObjectId: TypeAlias = Annotated[
    str, Path(alias="id", description="The object's id.", json_schema_extra={"pattern": f"^{_ID_PATTERN}$"})
]
"""An id in a path. It is not checked there: one of another form is not found."""
Flag: TypeAlias = Annotated[bool, BeforeValidator(parse_flag)]
"""True or false; each use adds its Query."""
Limit: TypeAlias = Annotated[
    int,
    BeforeValidator(_limit),
    Query(description="Entries on a page.", json_schema_extra={"minimum": 1, "maximum": _MAX_PAGE}),
]
After: TypeAlias = Annotated[
    str | None,
    *_text(_after, pattern=f"^{_ID_PATTERN}$"),
    Query(description="The id of the last entry of the previous page."),
]
Wait: TypeAlias = Annotated[
    float,
    BeforeValidator(_seconds),
    Query(
        description="Answer once the job has ended, or after this many seconds.",
        json_schema_extra={"minimum": 0, "maximum": _MAX_WAIT_S},
    ),
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

EVENTS = {"text/event-stream": {"type": "string", "description": "Server-sent events; an error is an event too."}}
RATES = tuple(f"x-ratelimit-{name}-requests" for name in ("limit", "remaining", "reset"))
"""The headers that report an API key's request limit."""


def success(
    description: str,
    model: object = None,
    *,
    content: Mapping[str, Any] | None = None,
    headers: Sequence[str] = (),
    links: Sequence[str] = (),
) -> dict[str, Any]:
    """An answer, for FastAPI's `responses`.

    `content` has the schemas of other media types than JSON, `headers` are names of the document's, and `links` the
    operations that take the answer's `id`.
    """
    found: dict[str, Any] = {
        "description": description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers},
        "links": {name: {"operationId": name, "parameters": {"id": "$response.body#/id"}} for name in links},
        "content": {media: {"schema": schema} for media, schema in (content or {}).items()},
    }
    return {name: value for name, value in {**found, "model": model}.items() if value}


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The statuses of errors beside those that any request may get; the document describes them."""
    return {status: {} for status in statuses}


def described(name: str, place: str, description: str, **schema: Any) -> dict[str, Any]:
    """A parameter that the endpoint reads by itself, for FastAPI's `openapi_extra`."""
    return {"name": name, "in": place, "required": False, "description": description, "schema": schema}
