"""An engine's inputs as a Cog schema, and the validation of a client's input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pybase64

from providers.worker.body import DataUri
from providers.worker.engines.base import Engine, Field, Value

_TYPES = {"picture": "string", "string": "string", "integer": "integer", "number": "number", "boolean": "boolean"}
_MOST_SHOWN = 100


@dataclass(slots=True)
class Checked:
    """A validated input object: values for the engine, ignored names, and problems."""

    values: dict[str, Value] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    wrong: list[dict[str, object]] = field(default_factory=list)


class _Wrong(Exception):
    """An invalid value; the message says why."""


def openapi(engine: Engine, *, webhooks: bool = True) -> dict[str, Any]:
    """Return the OpenAPI document of a worker with this engine, shaped as Cog shapes it.

    Without `webhooks` the schema has no webhook fields, so that clients can see that they are disabled.
    """
    wanted: dict[str, Any] = {
        "title": "Input",
        "type": "object",
        "properties": {
            name: _shown(name, declared, order) for order, (name, declared) in enumerate(engine.inputs.items())
        },
    }
    if required := [name for name, declared in engine.inputs.items() if declared.required]:
        wanted["required"] = required
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/PredictionRequest"}}}
    answer = {"application/json": {"schema": {"$ref": "#/components/schemas/PredictionResponse"}}}
    predict = {"requestBody": {"content": body}, "responses": {"200": {"description": "Ended", "content": answer}}}
    return {
        "openapi": "3.0.2",
        "info": {"title": engine.name, "version": engine.version},
        "paths": {"/predictions": {"post": predict}, "/predictions/{prediction_id}": {"put": predict}},
        "components": {
            "schemas": {
                "Input": wanted,
                "Output": {"title": "Output", "type": "string", "format": "uri"},
                "PredictionRequest": _request(webhooks),
                "PredictionResponse": _RESPONSE,
            }
        },
    }


_WEBHOOK = {
    "webhook": {"type": "string", "format": "uri"},
    "webhook_events_filter": {
        "type": "array",
        "items": {"type": "string", "enum": ["start", "output", "logs", "completed"]},
    },
}


def _request(webhooks: bool) -> dict[str, object]:
    properties = {"id": {"type": "string"}, "input": {"$ref": "#/components/schemas/Input"}}
    return {
        "title": "PredictionRequest",
        "type": "object",
        "properties": properties | (_WEBHOOK if webhooks else {}),
    }


_RESPONSE = {
    "title": "PredictionResponse",
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "model": {"type": "string"},
        "notes": {"type": "array", "items": {"type": "string"}},
        "status": {"type": "string", "enum": ["starting", "processing", "succeeded", "failed", "canceled"]},
        "input": {"type": "object"},
        "output": {"$ref": "#/components/schemas/Output"},
        "logs": {"type": "string"},
        "error": {"type": "string"},
        "metrics": {"type": "object"},
        "started_at": {"type": "string", "format": "date-time"},
        "completed_at": {"type": "string", "format": "date-time"},
    },
}


def check(fields: Mapping[str, Field], given: Mapping[str, object]) -> Checked:
    """Check an input object against an engine's fields. Decodes base64, so use a thread for large inputs."""
    checked = Checked(ignored=sorted(given.keys() - fields.keys()))
    for name, declared in fields.items():
        value = given.get(name)
        if name not in given or (value is None and not declared.required and declared.default is None):
            if declared.required:
                checked.wrong.append(_problem(name, "Field required", "value_error.missing"))
            elif declared.default is not None:
                checked.values[name] = declared.default
            continue
        try:
            checked.values[name] = _value(declared, value)
        except _Wrong as wrong:
            checked.wrong.append(_problem(name, str(wrong), "value_error"))
    return checked


def _shown(name: str, declared: Field, order: int) -> dict[str, object]:
    shown: dict[str, object] = {
        "title": name.replace("_", " ").capitalize(),
        "type": _TYPES[declared.type],
        "description": declared.description,
        "x-order": order,
    }
    if declared.type == "picture":
        shown["format"] = "uri"
    if declared.choices:
        shown["enum"] = list(declared.choices)
    for key in ("default", "minimum", "maximum"):
        if (value := getattr(declared, key)) is not None:
            shown[key] = value
    return shown


def _problem(name: str, message: str, kind: str) -> dict[str, object]:
    return {"loc": ["body", "input", name], "msg": message, "type": kind}


def _value(declared: Field, value: object) -> Value:
    if declared.type == "picture":
        return _picture(value)
    if declared.type in {"integer", "number"}:
        return _number(declared, value)
    if declared.type == "boolean":
        if not isinstance(value, bool):
            raise _Wrong(f'{_excerpt(value)} is not of type "boolean"')
        return value
    text = value.text() if isinstance(value, DataUri) else value
    if not isinstance(text, str):
        raise _Wrong(f'{_excerpt(value)} is not of type "string"')
    if declared.choices and text not in declared.choices:
        raise _Wrong(f"{_excerpt(text)} is not one of {', '.join(declared.choices)}")
    return text


def _number(declared: Field, value: object) -> int | float:
    # As in JSON Schema, 2.0 is an integer. An integer may be too large for a float.
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not isinstance(value, int | float) or not (whole or declared.type == "number"):
        raise _Wrong(f'{_excerpt(value)} is not of type "{declared.type}"')
    if declared.minimum is not None and value < declared.minimum:
        raise _Wrong(f"{_excerpt(value)} is less than the minimum of {declared.minimum:g}")
    if declared.maximum is not None and value > declared.maximum:
        raise _Wrong(f"{_excerpt(value)} is greater than the maximum of {declared.maximum:g}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _Wrong(f"{_excerpt(value)} is too large")
    return int(value) if declared.type == "integer" else number


def _picture(value: object) -> bytes:
    if isinstance(value, DataUri):
        return value.data
    if not isinstance(value, str):
        raise _Wrong(f'{_excerpt(value)} is not of type "string"')
    head, comma, encoded = value.partition(",")
    if head[:5].lower() == "data:" and comma and head.lower().endswith(";base64"):
        # Not extracted while parsing: it has parameters, or escaped slashes.
        try:
            return pybase64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise _Wrong(f"the data URI is not valid base64: {error}") from None
    if head.lower().startswith(("http://", "https://")):
        raise _Wrong("this worker does not fetch URLs: send the image as data:<media type>;base64,<data>")
    raise _Wrong("an image must be a data URI: data:<media type>;base64,<data>")


def _excerpt(value: object) -> str:
    if isinstance(value, DataUri):
        return f"a data URI of {value.mime}"
    try:
        text = repr(value)
    except ValueError:
        # An integer with thousands of digits, which Python refuses to format.
        return "the number"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
