"""The whole document, from the operations, the schemas and the config."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from gateway.api.keys import ApiKeyCreate, ApiKeyPatch
from gateway.api.openapi import fields, schemas
from gateway.api.openapi.codes import CODES
from gateway.api.openapi.operations import EDIT, OPERATIONS, Operation
from gateway.api.openapi.queries import RATES
from gateway.api.openapi.schemas import Schema, one_of, ref, text
from gateway.settings.loader import Config

_PREFIXES = {"/openai/v1": "", "/v1": "Short"}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_RETRY_AFTER: Schema = {"type": "integer", "minimum": 1}
# Each header with whether an answer that names it always has it.
_ANSWERED: Mapping[str, tuple[Schema, bool]] = {
    "x-request-id": (text("The request's id, in the log too.", pattern="^[A-Za-z0-9._-]{1,64}$"), True),
    "openai-processing-ms": ({"type": "integer", "minimum": 0}, True),
    "retry-after": ({**_RETRY_AFTER, "description": "In how many seconds to ask again."}, False),
    "x-should-retry": (one_of(("true", "false"), "Whether a client may repeat the call by itself."), False),
    "idempotent-replayed": ({"const": "true", "description": "The answer is that of an earlier call."}, False),
    "location": (text("The job's own address.", format="uri"), True),
    "preference-applied": ({"const": "respond-async"}, False),
    "x-darkroom-job": (text("The job's id."), False),
    "x-darkroom-provider": (text("Who served it."), False),
    "x-darkroom-model": (text("What the provider calls the model."), False),
    "x-darkroom-cost": (text("US dollars.", pattern="^[0-9]+\\.[0-9]{6}$"), False),
    "x-darkroom-attempts": ({"type": "integer", "minimum": 1}, False),
    "x-darkroom-degraded": ({"const": "true", "description": "It falls short of what the model promises."}, False),
    "x-ratelimit-limit-requests": ({"type": "integer", "minimum": 1}, False),
    "x-ratelimit-remaining-requests": ({"type": "integer", "minimum": 0}, False),
    "x-ratelimit-reset-requests": (text(pattern="^[0-9]+(\\.[0-9]+)?s$"), False),
    "www-authenticate": ({"const": "Bearer"}, False),
    "allow": (text(), False),
}
_EVERYWHERE = ("x-request-id", "openai-processing-ms")
_OF_ERRORS = {401: ("www-authenticate",), 405: ("allow",), 429: ("retry-after", *RATES), 503: ("retry-after",)}
_REQUEST_ID = {
    "name": "X-Request-Id",
    "in": "header",
    "schema": {"type": "string"},
    "description": "The caller's own id of it, taken if it has up to 64 letters, digits, dots, dashes and underscores.",
}


def document(config: Config, version: str) -> dict[str, Any]:
    """OpenAPI 3.1, with the models and limits of a config."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        if operation.path == "/metrics" and config.gateway.metrics_port is not None:
            continue
        for prefix, suffix in _PREFIXES.items() if operation.twice else [("", "")]:
            paths.setdefault(prefix + operation.path, {})[operation.method] = _operation(operation, suffix)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": _DIALECT,
        "info": {
            "title": "Darkroom",
            "version": version,
            "description": "OpenAI's `/images/edits` over many image providers. Both prefixes are the same. "
            "HEAD is answered wherever GET is.",
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "api-key"},
            },
            "headers": {name: _header(*found) for name, found in _ANSWERED.items()},
            "parameters": {"RequestId": _REQUEST_ID},
            "responses": {f"E{status}": _error(status) for status in CODES},
            "schemas": {
                **schemas.schemas(),
                "Picture": fields.image(),
                "EditForm": fields.form(config),
                "EditDocument": fields.document(config),
                **_rights(),
            },
        },
    }


def _operation(operation: Operation, suffix: str) -> dict[str, Any]:
    responses = {
        str(status): {
            "description": good.doc,
            "headers": _headers(*good.headers),
            **_content(good.content),
            **_links(operation.links.get(status, ()), suffix),
        }
        for status, good in operation.good.items()
    }
    for status in operation.statuses:
        responses.setdefault(str(status), {"$ref": f"#/components/responses/E{status}"})
    found: dict[str, Any] = {
        "operationId": operation.id + suffix,
        "summary": operation.doc,
        "parameters": [*operation.parameters, {"$ref": "#/components/parameters/RequestId"}],
        "responses": dict(sorted(responses.items())),
    }
    if operation.body is not None:
        content = _EDIT_BODIES if operation is EDIT else _content(operation.body)["content"]
        found["requestBody"] = {"required": True, "content": content}
    if operation.open:
        found["security"] = []
    return found


# 4 x 4 pixels: enough to try a call with.
_PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAQAAAAECAIAAAAmkwkpAAAAFElEQVR42mM8EaDBAANMDEgANwcAQCQB"
    "SFk25+YAAAAASUVORK5CYII="
)
_EXAMPLES = {
    "enlarge": {"image": _PICTURE, "scale_factor": 2},
    "background": {"image": _PICTURE, "prompt": "a cup of tea", "background": "true", "output_format": "webp"},
}
_EDIT_BODIES: dict[str, Any] = {
    "multipart/form-data": {"schema": ref("EditForm")},
    "application/json": {
        "schema": ref("EditDocument"),
        "examples": {name: {"value": example} for name, example in _EXAMPLES.items()},
    },
}


def _content(content: Mapping[str, Schema]) -> dict[str, Any]:
    return {"content": {media: {"schema": schema} for media, schema in content.items()}} if content else {}


def _error(status: int) -> dict[str, Any]:
    codes = CODES[status]
    named = f" Codes: {', '.join(codes)}." if codes else ""
    return {
        "description": f"{HTTPStatus(status).phrase}.{named}",
        "headers": _headers("x-should-retry", "x-darkroom-job", *_OF_ERRORS.get(status, ())),
        **_content({"application/json": ref("Error")}),
    }


def _header(schema: Schema, always: bool) -> dict[str, Any]:
    return {"schema": schema, "required": always}


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*_EVERYWHERE, *names)}


def _links(targets: tuple[str, ...], suffix: str) -> dict[str, Any]:
    """What the id in an answer is good for."""
    twice = {operation.id: operation.twice for operation in OPERATIONS}
    links = {
        name: {"operationId": name + (suffix if twice[name] else ""), "parameters": {"id": "$response.body#/id"}}
        for name in targets
    }
    return {"links": links} if links else {}


def _rights() -> dict[str, Schema]:
    """What keys are made from, as the register itself checks it."""
    return {model.__name__: model.model_json_schema() for model in (ApiKeyCreate, ApiKeyPatch)}
