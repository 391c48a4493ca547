"""`GET /models`: the models, their parameters, how each one reaches each provider, and the prices."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, time
from typing import Annotated, Any, cast

from fastapi import Path, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api.parameters import model_not_allowed, unknown_model
from gateway.api.paths import PREFIXES, Flag, failures, success
from gateway.api.schemas import (
    InputJson,
    JsonSchemaJson,
    ModelJson,
    ModelsJson,
    ParameterJson,
    PriceJson,
    RoutingJson,
    RuleJson,
)
from gateway.api.submission import grant_of
from gateway.http.auth import GuardedRouter, Permission
from gateway.routing.aliases import exact_names
from gateway.settings.loader import Config
from gateway.state import State
from normalization.parameters.rules import Param
from normalization.parameters.schema import Model
from normalization.parameters.table import cells
from normalization.parameters.undeclared import Undeclared
from providers.base import Readiness

_OTHERS: Mapping[Undeclared, str] = {
    "pass": "Undeclared fields pass to the provider's input as they are.",
    "warn": "Undeclared fields pass to the provider's input as they are, with a warning.",
    "refuse": "Undeclared fields are refused, but for provider_options.",
}


router = GuardedRouter(*PREFIXES)


@router.serve(
    "GET",
    "/models",
    Permission.KEY,
    operation_id="listModels",
    summary="Every model that the API key may use, then every alias.",
    responses={200: success("All models.", ModelsJson)},
)
async def list_models(request: Request) -> Response:
    """Every model that the API key may use, then every alias that is a name; a pattern is no name to send."""
    state: State = request.app.state.darkroom
    config = state.config
    api_key = grant_of(request)
    data = [describe(model, state) for model in config.models.values() if api_key.allows_model(model.id)]
    data += [
        {**describe(config.models[alias.model], state), "id": name, "alias_of": alias.model}
        for name, alias in ((name, config.aliases[name]) for name in exact_names(config.aliases))
        if api_key.allows_model(alias.model)
    ]
    models: ModelsJson = {"object": "list", "data": data}
    return JSONResponse(models)


@router.serve(
    "GET",
    "/models/{id:path}",
    Permission.KEY,
    operation_id="readModel",
    summary="Read a model by its id or an alias.",
    responses={
        200: success("The model, or its parameters' schema.", ModelJson | JsonSchemaJson),
        **failures(404),
    },
)
async def read_model(
    request: Request,
    name: Annotated[str, Path(alias="id", min_length=1, description="A model's id or an alias; it may have slashes.")],
    schema: Annotated[Flag, Query(description="Return the JSON Schema of the model's parameters instead.")] = False,
) -> Response:
    """One model by its id or an alias; with `?schema=true` the JSON Schema of its parameters."""
    state: State = request.app.state.darkroom
    model, alias = state.config.resolve(name)
    if model is None:
        raise unknown_model(name, state.config)
    if not (api_key := grant_of(request)).allows_model(model.id):
        raise model_not_allowed(name, api_key)
    if schema:
        return JSONResponse(json_schema(model, state.config))
    found = describe(model, state)
    return JSONResponse({**found, "id": name, "alias_of": alias.model} if alias else found)


def describe(model: Model, state: State) -> ModelJson:
    """A model as JSON: OpenAI's fields, and ours."""
    conditions = state.conditions(model)
    by_route: dict[str, dict[str, RuleJson]] = {name: {} for name in model.routes}
    own: dict[str, dict[str, ParameterJson]] = {name: {} for name in model.routes}
    for cell in cells(model):
        rule: RuleJson = cast("RuleJson", cell.rule.model_dump(exclude_none=True))
        by_route[cell.route.name][cell.name] = {**rule, "to": cell.target} if cell.target else rule
        if cell.only_here:
            own[cell.route.name][cell.name] = _param(cell.param)
    return {
        "id": model.id,
        "object": "model",
        "created": int(datetime.combine(model.created, time(), UTC).timestamp()),
        "owned_by": model.owned_by,
        "description": model.doc,
        "modes": list(model.modes),
        "routing": cast("RoutingJson", model.routing.model_dump(exclude_defaults=True)),
        "parameters": {name: _param(param) for name, param in model.params.items()},
        "routes": {
            name: {
                "provider": route.provider,
                "model": route.model or None,
                "state": conditions[name].readiness.value,
                "detail": conditions[name].detail,
                "standing": conditions[name].standing,
                "degraded": route.degraded,
                "alpha": route.alpha,
                "input": cast("InputJson", route.input.model_dump(mode="json", exclude_none=True)),
                "price": cast("PriceJson", {**route.price.model_dump(exclude_defaults=True), "currency": "USD"}),
                "parameters": own[name],
                "rules": by_route[name],
            }
            for name, route in model.routes.items()
        },
        "available": any(found.readiness is Readiness.READY for found in conditions.values()),
    }


def json_schema(model: Model, config: Config) -> JsonSchemaJson:
    """JSON Schema (2020-12) of a request's fields for this model."""
    properties: dict[str, Any] = {"model": {"type": "string", "const": model.id}}
    for cell in cells(model):
        note = f" Only on {' and '.join(model.routes_with(cell.name))}." if cell.only_here else ""
        properties.setdefault(cell.name, property_of(cell.param, note))
    required = [name for name, param in model.params.items() if param.required]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": model.id,
        "description": model.doc,
        "type": "object",
        "properties": {**properties, **dict.fromkeys(sorted(config.denied), False)},
        "required": required,
        "additionalProperties": {"description": _OTHERS[config.gateway.undeclared]},
    }


def _param(param: Param) -> ParameterJson:
    return cast("ParameterJson", param.model_dump(exclude_none=True))


def property_of(param: Param, note: str = "") -> dict[str, Any]:
    """JSON Schema of one parameter; `note` is added to its description."""
    found: dict[str, Any] = {"description": param.doc + note}
    if param.type == "image":
        return {**found, "type": "string", "contentEncoding": "base64", "contentMediaType": "image/*"}
    if param.type != "enum":
        found["type"] = param.type
    if param.choices is not None:
        words = {"enum": list(param.choices)}
        found |= {"items": words} if param.type == "array" else words
    low, high = ("minLength", "maxLength") if param.type == "string" else ("minimum", "maximum")
    for name, bound in ((low, param.min), (high, param.max)):
        if bound is not None:
            found[name] = int(bound) if bound.is_integer() else bound
    if param.default is not None:
        found["default"] = param.default
    return found
