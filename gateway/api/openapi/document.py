"""The whole document: what FastAPI generates of the routes, with what it cannot say.

That is: headers, errors with their codes, both prefixes, the edit form of a config.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, TypeAlias

from fastapi.openapi.utils import get_openapi

from gateway.api.keys import ApiKeyCreate, ApiKeyPatch
from gateway.api.openapi import fields
from gateway.api.openapi.codes import CODES
from gateway.api.openapi.fields import Schema, ref, text
from gateway.api.paths import RATES
from gateway.http.auth import GuardedRoute, GuardedRouter, Permission
from gateway.settings.loader import Config

Node: TypeAlias = Any

# What follows an operation's id below a prefix.
_SUFFIXES = {"/v1": "Short"}
# What any request may be answered with: its head is invalid, or meant for another server; or this one fails.
_ALWAYS = (400, 408, 421, 431, 500, 503)
_GUARDED = (401, 403)
# FastAPI's own errors, which are never answered.
_FASTAPIS = ("HTTPValidationError", "ValidationError")
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_RETRY_AFTER: Schema = {"type": "integer", "minimum": 1}
# Each header with whether an answer that names it always has it.
_ANSWERED: Mapping[str, tuple[Schema, bool]] = {
    "x-request-id": (text("The request's id, also in the log.", pattern="^[A-Za-z0-9._-]{1,64}$"), True),
    "openai-processing-ms": ({"type": "integer", "minimum": 0}, True),
    "retry-after": ({**_RETRY_AFTER, "description": "Seconds to wait before the next try."}, False),
    "x-should-retry": (text("Whether a client may repeat the request by itself.", enum=["true", "false"]), False),
    "idempotent-replayed": ({"const": "true", "description": "The answer is that of an earlier request."}, False),
    "location": (text("The job's own address.", format="uri"), True),
    "preference-applied": ({"const": "respond-async"}, False),
    "x-darkroom-job": (text("The job's id."), False),
    "x-darkroom-provider": (text("The provider that served it."), False),
    "x-darkroom-model": (text("The provider's own name of the model."), False),
    "x-darkroom-cost": (text("US dollars.", pattern="^[0-9]+\\.[0-9]{6}$"), False),
    "x-darkroom-attempts": ({"type": "integer", "minimum": 1}, False),
    "x-darkroom-degraded": (
        {"const": "true", "description": "The result falls short of what the model promises."},
        False,
    ),
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
    "description": "The client's own id of the request: up to 64 letters, digits, dots, dashes and underscores.",
}


def document(config: Config, version: str, routers: Iterable[GuardedRouter]) -> dict[str, Any]:
    """OpenAPI 3.1, with the models and limits of a config."""
    routers = list(routers)
    routes = [route for router in routers for route in router.guarded]
    generated = _cleaned(get_openapi(title="Darkroom", version=version, routes=routes))
    twice = {str(route.operation_id) for router in routers if len(router.prefixes) > 1 for route in router.guarded}
    paths: dict[str, dict[str, Any]] = {}
    for router in routers:
        for prefix in router.prefixes:
            suffix = _SUFFIXES.get(prefix, "")
            for route in router.guarded:
                for method, operation in generated["paths"].get(route.path_format, {}).items():
                    if method.upper() in (route.methods or ()):
                        described = _operation(operation, route, suffix, twice)
                        paths.setdefault(prefix + route.path_format, {})[method] = described
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
                **generated["components"]["schemas"],
                "Picture": fields.image(),
                "EditForm": fields.form(config),
                "EditDocument": fields.document(config),
                **{model.__name__: model.model_json_schema() for model in (ApiKeyCreate, ApiKeyPatch)},
            },
        },
    }


def _cleaned(generated: Node) -> Node:
    """The generated document without what would only repeat its names, and with the schemas' own names."""
    schemas = generated["components"]["schemas"]
    for name in _FASTAPIS:
        schemas.pop(name, None)
    schemas["ImageJson"]["minProperties"] = 1
    renamed = re.sub(r"PageJson_(\w+?)(?:Entry)?Json_", r"\1Page", json.dumps(generated))
    found = json.loads(re.sub(r'\b(\w+)Json"', r'\1"', renamed))
    return {"paths": _untitled(found["paths"]), "components": _untitled(found["components"])}


def _untitled(node: Node) -> Node:
    """A schema without the titles that are made of its names; a property may be called title."""
    if isinstance(node, list):
        return [_untitled(inner) for inner in node]
    if isinstance(node, dict):
        return {name: _untitled(inner) for name, inner in node.items() if name != "title" or isinstance(inner, dict)}
    return node


def _operation(generated: Mapping[str, Any], route: GuardedRoute, suffix: str, twice: set[str]) -> dict[str, Any]:
    public = route.access <= Permission.OPTIONAL
    responses = {
        status: _success(answer, suffix, twice)
        for status, answer in generated["responses"].items()
        if int(status) < 400 or ("content" in answer and int(status) in route.responses)
    }
    failing = {status for status in route.responses if int(status) >= 400}
    for status in {*failing, *_ALWAYS, *(() if public else _GUARDED)}:
        responses.setdefault(str(status), {"$ref": f"#/components/responses/E{status}"})
    found: dict[str, Any] = {
        "operationId": f"{generated['operationId']}{suffix}",
        "summary": generated["summary"],
        "parameters": [
            *(_parameter(one) for one in generated.get("parameters", ())),
            {"$ref": "#/components/parameters/RequestId"},
        ],
        "responses": dict(sorted(responses.items())),
    }
    if route.operation_id == "editImage":
        found["requestBody"] = {"required": True, "content": _EDIT_BODIES}
    elif "requestBody" in generated:
        found["requestBody"] = generated["requestBody"]
    if public:
        found["security"] = []
    return found


def _parameter(generated: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter that says its description once."""
    schema = {name: value for name, value in generated["schema"].items() if name != "description"}
    return {**generated, "schema": schema}


def _success(generated: Mapping[str, Any], suffix: str, twice: set[str]) -> dict[str, Any]:
    """An answer with the headers that every answer has, and with links to operations below the same prefix."""
    found = {**generated, "headers": {**_headers(), **generated.get("headers", {})}}
    if "links" in generated:
        found["links"] = {
            name: {**link, "operationId": name + (suffix if name in twice else "")}
            for name, link in generated["links"].items()
        }
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


def _error(status: int) -> dict[str, Any]:
    codes = CODES[status]
    named = f" Codes: {', '.join(codes)}." if codes else ""
    return {
        "description": f"{HTTPStatus(status).phrase}.{named}",
        "headers": _headers("x-should-retry", "x-darkroom-job", *_OF_ERRORS.get(status, ())),
        "content": {"application/json": {"schema": ref("Error")}},
    }


def _header(schema: Schema, always: bool) -> dict[str, Any]:
    return {"schema": schema, "required": always}


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in (*_EVERYWHERE, *names)}
