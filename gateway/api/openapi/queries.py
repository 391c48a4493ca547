"""What addresses and headers of requests carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from gateway.api.openapi.schemas import Schema, flag, one_of, text
from gateway.api.paths import ID_PATTERN, MAX_PAGE, MAX_WAIT_S
from gateway.ledger.records import STATES

Parameter = Mapping[str, Any]

RATES = tuple(f"x-ratelimit-{name}-requests" for name in ("limit", "remaining", "reset"))


def _given(name: str, place: Literal["query", "path", "header"], schema: Schema) -> Parameter:
    found = {"name": name, "in": place, "required": place == "path", "schema": schema}
    doc = schema.pop("description", None)
    return {**found, "description": doc} if doc else found


def _query(name: str, schema: Schema) -> Parameter:
    return _given(name, "query", schema)


def _time(name: str, doc: str) -> Parameter:
    return _query(name, text(f"{doc}: seconds since the epoch, or ISO 8601.", examples=["2026-01-31T12:00:00Z"]))


ID = _given("id", "path", text("An id of ours.", pattern=f"^{ID_PATTERN}$"))
MODEL = _given("id", "path", text("A model's id or an alias; it may have slashes.", minLength=1))
WAIT = _query(
    "wait",
    {
        "type": "number",
        "minimum": 0,
        "maximum": MAX_WAIT_S,
        "default": 0,
        "description": "Answer once the job has ended, or after so many seconds.",
    },
)
SCHEMA = _query("schema", flag("The JSON Schema of the model's parameters, instead of the model."))
EDIT = (
    _query("dry_run", flag("Tell what would be tried, at which price. Nothing is sent and nothing is spent.")),
    _given(
        "Idempotency-Key",
        "header",
        text("A call with the key of another is given that one's job.", pattern="^[!-~]{1,255}$"),
    ),
    _given("Prefer", "header", text("`respond-async` asks for a job in the background.")),
    _given("X-Darkroom-Routing", "header", text("Routes in short, as `routing` has them at length: `fal,cheapest`.")),
)
PAGE = (
    _query(
        "limit",
        {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_PAGE,
            "default": 20,
            "description": "How many a page has.",
        },
    ),
    _query("after", text("The id of the entry to go on after.", pattern=f"^{ID_PATTERN}$")),
)
JOBS = (
    _query("model", text("Only those of this model.")),
    _query("status", one_of(STATES, "Only those in this state.")),
)
REQUESTS = (
    *JOBS,
    _query("provider", text("Only those that a provider worked for.")),
    _query("key", text("Only those of the key with this id.")),
    _time("created_after", "Only those made then or later"),
    _time("created_before", "Only those made before"),
    _query("summary", flag("Their number and cost, instead of themselves.")),
)
HOOK = (
    _given("provider", "path", text("Whose word it is.")),
    _given("attempt", "path", text("An attempt's id.")),
    _given("mac", "path", text("What makes the address a secret.")),
)
FILE = (
    _given("name", "path", text("The file's name.")),
    _query(
        "expires",
        {"type": "integer", "minimum": 0, "description": "With `files_signed`: until when it may be fetched."},
    ),
    _query("signature", text("With `files_signed`: that the address is ours.")),
)
