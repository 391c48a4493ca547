"""JSON Schemas of the answers: errors, images, jobs, ledger entries and API keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, get_args

from gateway.auth.keys import PERIODS
from gateway.ledger import records
from gateway.routing.breaker import Standing
from gateway.routing.preferences import STRATEGIES
from normalization.parameters import rules, schema
from providers.base import Readiness

Schema: TypeAlias = "dict[str, Any]"

NULL: Schema = {"type": "null"}
MONEY: Schema = {"type": "number", "minimum": 0, "description": "US dollars."}
CURRENCY: Schema = {"const": "USD"}
TIME: Schema = {"type": "number", "description": "Seconds since the epoch."}
COUNT: Schema = {"type": "integer", "minimum": 0}
ANYTHING: Schema = {"type": "object", "additionalProperties": True}


def text(doc: str | None = None, **more: Any) -> Schema:
    """A string."""
    return {"type": "string", **({"description": doc} if doc else {}), **more}


def flag(doc: str | None = None) -> Schema:
    """A boolean."""
    return {"type": "boolean", **({"description": doc} if doc else {})}


def one_of(words: Iterable[str], doc: str | None = None) -> Schema:
    """One of some words."""
    return text(doc, enum=list(words))


def or_null(schema: Schema) -> Schema:
    """The same, or null."""
    return {"anyOf": [schema, NULL]}


def many(items: Schema, **more: Any) -> Schema:
    """A list."""
    return {"type": "array", "items": items, **more}


def by_name(values: Schema) -> Schema:
    """An object with names of its own for its keys."""
    return {"type": "object", "additionalProperties": values}


def record(doc: str | None = None, /, *, optional: Mapping[str, Schema] | None = None, **always: Schema) -> Schema:
    """An object with these keys and no others."""
    return {
        "type": "object",
        **({"description": doc} if doc else {}),
        "properties": {**always, **(optional or {})},
        "required": list(always),
        "additionalProperties": False,
    }


def ref(name: str) -> Schema:
    """A schema of the document by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def page(item: Schema) -> Schema:
    """A page of a list; `next` is what `after` takes for the following one."""
    return record(
        object={"const": "list"},
        data=many(item),
        has_more=flag("Whether there is another page."),
        next=or_null(text("What `after` takes for the next page.")),
    )


_ID = text("An id of ours.", minLength=1)
_SCALE = {"type": ["number", "null"], "minimum": 0, "maximum": 1}


def schemas() -> dict[str, Schema]:
    """Every schema of an answer by its name."""
    return {**_errors(), **_pictures(), **_jobs(), **_requests(), **_keys(), **_models(), **_small()}


def _errors() -> dict[str, Schema]:
    inner = record(
        optional={"metadata": {**ANYTHING, "description": "What was tried, and what there is all the same."}},
        message=text("What was wrong, where, and what would work: a complete sentence."),
        type=text("OpenAI's word for the kind of error."),
        param=or_null(text("The field that is at fault.")),
        code=or_null(text("What a program can tell the error by.")),
    )
    return {"ErrorDetail": inner, "Error": record("OpenAI's envelope.", error=ref("ErrorDetail"))}


def _pictures() -> dict[str, Schema]:
    attempt = record(
        "One upstream call as it went.",
        provider=text(),
        model=text("The provider's own name of it."),
        picture={**COUNT, "description": "Which of the pictures it was for."},
        outcome=text("`ok`, or how it failed."),
        seconds={"type": "number", "minimum": 0},
        cost=MONEY,
        actual=flag("Whether the cost is the provider's own word; else it is the estimate."),
        message=or_null(text()),
    )
    metadata = record(
        "What was done, by whom, for how much, and every loss on the way.",
        optional={"partial": flag("Fewer pictures than were asked for.")},
        model=text(),
        executed_model=text(),
        provider=text(),
        cost=MONEY,
        cost_currency=CURRENCY,
        attempts=many(ref("Attempt")),
        warnings=many(text()),
    )
    image = record(
        optional={
            "url": text(format="uri"),
            "b64_json": text(contentEncoding="base64"),
            "seed": {**COUNT, "description": "What was sent for it as seed, where its route has one."},
        }
    )
    images = record(
        "OpenAI's ImagesResponse, with the job's id and what was done beside it.",
        optional={"output_format": one_of(("png", "jpeg", "webp", "gif"))},
        id=_ID,
        created=COUNT,
        data=many(ref("Image"), minItems=1),
        size=text(pattern="^[0-9]+x[0-9]+$"),
        background=one_of(("transparent", "opaque")),
        metadata=ref("Metadata"),
    )
    excluded = record(provider=text(), route=text(), reason=text(), param=or_null(text()))
    candidate = record(
        provider=text(),
        route=text(),
        model=or_null(text()),
        cost=MONEY,
        cost_at_most=MONEY,
        cost_currency=CURRENCY,
        components=by_name(MONEY),
        healthy=flag(),
        degraded=flag(),
        calls=COUNT,
        payload={**ANYTHING, "description": "The first call's input, a picture as its size and hash."},
        output=or_null(text()),
        delivered=or_null(text()),
        finish=many(ANYTHING),
        warnings=many(text()),
    )
    return {
        "Attempt": attempt,
        "Metadata": metadata,
        "Image": {**image, "minProperties": 1},
        "ImagesResponse": images,
        "DryRun": record(
            "What would be tried, in this order. Nothing is sent and nothing is spent.",
            dry_run={"const": True},
            model=text(),
            candidates=many(candidate),
            excluded=many(excluded),
        ),
    }


def _jobs() -> dict[str, Schema]:
    always: dict[str, Schema] = {
        "id": _ID,
        "object": {"const": "image.job"},
        "status": one_of(records.STATES),
        "created_at": COUNT,
        "ended_at": or_null(COUNT),
        "model": text(),
        "progress": _SCALE,
        "cost_estimate": MONEY,
        "cost": or_null(MONEY),
        "error": or_null(ref("ErrorDetail")),
        "urls": record(get=text(format="uri"), cancel=text(format="uri")),
    }
    asked = {"cancel_requested": flag("A cancel is on its way.")}
    return {
        "Job": record(
            "A job with its result, once there is one.",
            optional=asked,
            **always,
            result=or_null(ref("ImagesResponse")),
        ),
        "JobPage": page(record("A job without its result.", optional=asked, **always)),
    }


def _requests() -> dict[str, Schema]:
    attempt = record(
        id=_ID,
        provider=text(),
        route=text(),
        model=text(),
        picture=COUNT,
        status=text(),
        outcome=or_null(text()),
        upstream_id=or_null(text("The provider's own id of the job.")),
        sent_at=TIME,
        submitted_at=or_null(TIME),
        ended_at=or_null(TIME),
        estimate=MONEY,
        cost=MONEY,
        actual=flag(),
        message=or_null(text()),
    )
    always: dict[str, Schema] = {
        "id": _ID,
        "object": {"const": "request"},
        "created_at": TIME,
        "ended_at": or_null(TIME),
        "duration_ms": or_null(COUNT),
        "model": text(),
        "status": one_of(records.STATES),
        "mode": one_of(get_args(records.Mode)),
        "key": or_null(text("The id of the key that it came with.")),
        "request_id": or_null(text()),
        "idempotency_key": or_null(text()),
        "provider": or_null(text()),
        "images_wanted": COUNT,
        "images": COUNT,
        "cost_estimate": MONEY,
        "cost": MONEY,
        "cost_currency": CURRENCY,
        "error": or_null(record(message=text(), type=text(), code=or_null(text()))),
        "attempts": many(attempt),
    }
    return {
        "Request": record(
            "A request with what was asked, as far as that is kept.", **always, parameters=or_null(ANYTHING)
        ),
        "RequestPage": page(record("A request.", **always)),
        "RequestSummary": record(
            object={"const": "request.summary"},
            count=COUNT,
            cost=MONEY,
            cost_currency=CURRENCY,
            by_provider=by_name(record(attempts=COUNT, cost=MONEY)),
        ),
        "Purged": record(id=_ID, object={"const": "request"}, purged={"const": True}, files_deleted=COUNT),
    }


def _keys() -> dict[str, Schema]:
    budget = record(
        limit=MONEY,
        every=one_of(PERIODS),
        spent=MONEY,
        left=MONEY,
        currency=CURRENCY,
        until=or_null(TIME),
    )
    always: dict[str, Schema] = {
        "id": _ID,
        "object": {"const": "key"},
        "name": text(),
        "created_at": TIME,
        "expires_at": or_null(TIME),
        "revoked_at": or_null(TIME),
        "admin": flag(),
        "models": or_null(many(text())),
        "providers": or_null(many(text())),
        "rpm": or_null(COUNT),
        "concurrency": or_null(COUNT),
        "budget": or_null(budget),
    }
    return {
        "Key": record("A key, without itself.", **always),
        "KeyPage": page(ref("Key")),
        "MadeKey": record("A new key; this answer alone has it.", **always, key=text("What callers send.")),
    }


def _models() -> dict[str, Schema]:
    bounds: dict[str, Schema] = {
        "min": {"type": "number"},
        "max": {"type": "number"},
        "choices": many({}),
        "default": {},
    }
    param = record(
        "A parameter that is declared.",
        optional={**bounds, "synonyms": {"type": "object", "description": "Other words for a choice, each with it."}},
        type=one_of(get_args(rules.ParamType)),
        doc=text(),
        required=flag(),
    )
    rule = {
        **record(
            "How a parameter reaches the provider.",
            optional={**bounds, "to": text(), "using": text(), "table": ANYTHING, "by": text()},
            rule=one_of(("passthrough", "renamed", "converted", "emulated")),
        )
    }
    route = record(
        provider=text(),
        model=or_null(text()),
        state=one_of(found.value for found in Readiness),
        detail=text(),
        standing=one_of(get_args(Standing)),
        degraded=or_null(text("How it falls short of what the model's name promises.")),
        alpha=one_of(("keep", "drop"), "Whether pictures come back with their transparency."),
        input=record(
            "The pictures that it takes.",
            optional={"max_bytes": COUNT, "max_pixels": COUNT, "max_side": COUNT},
            formats=many(one_of(("png", "jpeg", "webp"))),
        ),
        price={"type": "object", "properties": {"currency": CURRENCY}, "required": ["currency"]},
        parameters=by_name(ref("Parameter")),
        rules=by_name(rule),
    )
    usual = record(
        "What counts where a request's routing says nothing else.",
        optional={
            "order": many(text()),
            "sort": one_of(STRATEGIES),
            "max_cost": MONEY,
            "allow_fallbacks": flag(),
        },
    )
    described = record(
        "OpenAI's model, with what it takes, how that reaches each provider, and at what price.",
        optional={"alias_of": text()},
        id=text(),
        object={"const": "model"},
        created=COUNT,
        owned_by=text(),
        description=text(),
        modes=many(one_of(get_args(schema.Mode))),
        routing=usual,
        parameters=by_name(ref("Parameter")),
        routes=by_name(route),
        available=flag("Whether any route can serve at the moment."),
    )
    return {
        "Parameter": param,
        "Model": described,
        "Models": record(object={"const": "list"}, data=many(ref("Model"))),
        "JsonSchema": {
            "type": "object",
            "description": "The JSON Schema of a request's fields.",
            "properties": {"$schema": text(), "title": text()},
            "required": ["$schema", "title", "properties"],
        },
    }


def _small() -> dict[str, Schema]:
    route = record(state=one_of(found.value for found in Readiness), detail=text(), standing=one_of(get_args(Standing)))
    return {
        "Alive": record(status={"const": "ok"}),
        "Readiness": record(
            optional={"models": {**by_name(by_name(route)), "description": "For an admin: each route of each model."}},
            status=one_of(("ready", "not ready")),
            ledger=one_of(("up", "down")),
        ),
        "Heard": record(ok={"const": True}),
        "WebhookSecret": record(key=text("What webhooks to this caller's addresses are signed with.")),
    }
