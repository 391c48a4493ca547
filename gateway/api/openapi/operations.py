"""Every operation: its address, what it takes, and what it answers beside errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.api.openapi import queries
from gateway.api.openapi.schemas import ANYTHING, Schema, ref
from gateway.telemetry.metrics import CONTENT_TYPE
from normalization.values import MEDIA_TYPES

# What any request may be answered with: its head is wrong, or meant for another server; or this one fails.
ALWAYS = (400, 408, 421, 431, 500, 503)
GUARDED = (401, 403)


@dataclass(frozen=True, slots=True, kw_only=True)
class Success:
    """An answer that is not an error. `content` is media type to schema; `headers` are names of the document's."""

    doc: str
    content: Mapping[str, Schema] = field(default_factory=dict)
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path.

    `id` is the same for both prefixes of OpenAI's paths, which `twice` stands for. `errors` come beside those that
    any request may get. `links` are names of operations that an answer's `id` leads to, by its status.
    """

    id: str
    method: str
    path: str
    doc: str
    good: Mapping[int, Success]
    errors: tuple[int, ...] = ()
    parameters: tuple[Mapping[str, Any], ...] = ()
    body: Mapping[str, Schema] | None = None
    twice: bool = True
    open: bool = False
    links: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    @property
    def statuses(self) -> tuple[int, ...]:
        """Every status of an error."""
        return tuple(sorted({*self.errors, *ALWAYS, *(() if self.open else GUARDED)}))


def _json(doc: str, *names: str, headers: tuple[str, ...] = ()) -> Success:
    schemas = [ref(name) for name in names]
    return Success(
        doc=doc,
        content={"application/json": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}},
        headers=headers,
    )


_EVENTS: Schema = {"type": "string", "description": "Server-sent events; an error is one too, in the envelope."}
_JOB = ("x-darkroom-job", "retry-after")
_SERVED = tuple(f"x-darkroom-{name}" for name in ("job", "provider", "model", "cost", "attempts", "degraded"))
_FOLLOWED = ("readJob", "cancelJob", "readRequest")
_FILE = Success(
    doc="The picture.",
    content={media: {"type": "string", "format": "binary"} for media in MEDIA_TYPES.values()},
)

EDIT = Operation(
    id="editImage",
    method="post",
    path="/images/edits",
    doc="Edit or enlarge a picture.",
    parameters=queries.EDIT,
    body={},
    good={
        200: Success(
            doc="The pictures; or, asked for with `dry_run`, what would be tried.",
            content={
                "application/json": {"anyOf": [ref("ImagesResponse"), ref("DryRun")]},
                "text/event-stream": _EVENTS,
            },
            headers=(*_SERVED, "idempotent-replayed", *queries.RATES),
        ),
        202: _json("The job goes on in the background.", "Job", headers=("location", "preference-applied", *_JOB)),
    },
    errors=(404, 410, 413, 415, 422, 429, 502, 504),
    links={200: ("readJob", "readRequest"), 202: _FOLLOWED},
)

OPERATIONS: tuple[Operation, ...] = (
    EDIT,
    Operation(
        id="listJobs",
        method="get",
        path="/images/jobs",
        doc="The caller's jobs, the newest first, without their results.",
        parameters=(*queries.PAGE, *queries.JOBS),
        good={200: _json("A page of jobs.", "JobPage")},
    ),
    Operation(
        id="readJob",
        method="get",
        path="/images/jobs/{id}",
        doc="One job: now, once it has ended (`wait`), or each time that there is something new of it (events).",
        parameters=(queries.ID, queries.WAIT),
        good={
            200: Success(
                doc="The job.",
                content={"application/json": ref("Job"), "text/event-stream": _EVENTS},
                headers=_JOB,
            )
        },
        errors=(404,),
    ),
    Operation(
        id="cancelJob",
        method="post",
        path="/images/jobs/{id}/cancel",
        doc="Cancel a job, upstream too. One that has ended stays as it is.",
        parameters=(queries.ID,),
        good={200: _json("The job, and what was billed.", "Job", headers=_JOB)},
        errors=(404, 502, 504),
    ),
    Operation(
        id="createKey",
        method="post",
        path="/keys",
        doc="Make a key. Takes the admin's.",
        body={"application/json": ref("ApiKeyCreate")},
        good={201: _json("The key; this answer alone has it.", "MadeKey")},
        errors=(413, 415),
        links={201: ("readKey", "changeKey", "revokeKey")},
    ),
    Operation(
        id="listKeys",
        method="get",
        path="/keys",
        doc="Every key, the newest first, with what it has spent. Takes the admin's.",
        good={200: _json("All of them.", "KeyPage")},
    ),
    Operation(
        id="readKey",
        method="get",
        path="/keys/{id}",
        doc="One key. Takes the admin's.",
        parameters=(queries.ID,),
        good={200: _json("The key, without itself.", "Key")},
        errors=(404,),
    ),
    Operation(
        id="changeKey",
        method="patch",
        path="/keys/{id}",
        doc="Change what a key may, as far as the body names it; null takes a limit away. Takes the admin's.",
        parameters=(queries.ID,),
        body={"application/json": ref("Rights")},
        good={200: _json("The key as it is now.", "Key")},
        errors=(404, 413, 415),
    ),
    Operation(
        id="revokeKey",
        method="delete",
        path="/keys/{id}",
        doc="Revoke a key. Jobs that go on are not cancelled. Takes the admin's.",
        parameters=(queries.ID,),
        good={200: _json("The key as it is now.", "Key")},
        errors=(404,),
    ),
    Operation(
        id="readWebhookSecret",
        method="get",
        path="/webhooks/secret",
        doc="What webhooks to this caller's addresses are signed with.",
        good={200: _json("The secret.", "WebhookSecret")},
    ),
    Operation(
        id="listModels",
        method="get",
        path="/models",
        doc="Every model that the key may use, then every alias.",
        good={200: _json("All of them.", "Models")},
    ),
    Operation(
        id="readModel",
        method="get",
        path="/models/{id}",
        doc="One model by its id or an alias.",
        parameters=(queries.MODEL, queries.SCHEMA),
        good={200: _json("The model, or the schema of its parameters.", "Model", "JsonSchema")},
        errors=(404,),
    ),
    Operation(
        id="listRequests",
        method="get",
        path="/v1/requests",
        twice=False,
        doc="The caller's requests as the ledger tells of them, the newest first.",
        parameters=(*queries.PAGE, *queries.REQUESTS),
        good={200: _json("A page of requests, or sums over all of them.", "RequestPage", "RequestSummary")},
    ),
    Operation(
        id="readRequest",
        method="get",
        path="/v1/requests/{id}",
        twice=False,
        doc="One request, by the `id` of its answer, with its parameters and every attempt.",
        parameters=(queries.ID,),
        good={200: _json("The request.", "Request")},
        errors=(404,),
    ),
    Operation(
        id="forgetPayload",
        method="delete",
        path="/v1/requests/{id}/payload",
        twice=False,
        doc="Forget what was asked and what came of it: parameters, prompt, pictures. The bill stays.",
        parameters=(queries.ID,),
        good={200: _json("Forgotten.", "Purged")},
        errors=(404,),
    ),
    Operation(
        id="hearProvider",
        method="post",
        path="/hooks/{provider}/{attempt}/{mac}",
        twice=False,
        open=True,
        doc="A provider tells of a job. The address is a secret, and known to that provider alone.",
        parameters=queries.HOOK,
        body={"application/json": {}},
        good={200: _json("Heard, whatever comes of it.", "Heard")},
        errors=(401, 404, 413),
    ),
    Operation(
        id="readFile",
        method="get",
        path="/files/{name}",
        twice=False,
        open=True,
        doc="A result picture. Its address is a secret, and over with its time.",
        parameters=queries.FILE,
        good={200: _FILE, 206: _FILE},
        errors=(403, 404, 416),
    ),
    Operation(
        id="readMetrics",
        method="get",
        path="/metrics",
        twice=False,
        doc="All metrics in Prometheus' text format. Takes the admin's key.",
        good={200: Success(doc="The metrics.", content={CONTENT_TYPE: {"type": "string"}})},
    ),
    Operation(
        id="readDocument",
        method="get",
        path="/openapi.json",
        twice=False,
        doc="This document.",
        good={200: Success(doc="The document.", content={"application/json": ANYTHING})},
    ),
    Operation(
        id="readHealth",
        method="get",
        path="/healthz",
        twice=False,
        open=True,
        doc="The process answers.",
        good={200: _json("It does.", "Alive")},
    ),
    Operation(
        id="readReadiness",
        method="get",
        path="/readyz",
        twice=False,
        open=True,
        doc="Whether any model has a route that can serve; with the admin's key, which.",
        good={200: _json("It has.", "Readiness"), 503: _json("It has not.", "Readiness", "Error")},
    ),
)
