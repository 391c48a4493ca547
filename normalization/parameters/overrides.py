"""Values for one provider: there each overrides the one that is shared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from normalization.parameters.coerce import Invalid
from normalization.parameters.rules import Emulated
from normalization.parameters.schema import Model, Route
from normalization.values import ImageRequest, Value


def overridden(model: Model, route: Route, request: ImageRequest) -> ImageRequest:
    """The request as a route's provider is meant to have it: what `provider_options` says of a parameter counts."""
    options = request.provider_options.get(route.provider, {})
    own = {name: value for name, value in options.items() if _is_parameter(model, route, name)}
    if not own:
        return request
    rest = {name: value for name, value in options.items() if name not in own}
    return replace(
        request,
        params={**request.params, **own},
        provider_options={**request.provider_options, route.provider: rest},
        seed=cast("int", own["seed"]) if "seed" in own else request.seed,
    )


def undeclared(model: Model, route: Route, options: Mapping[str, Value]) -> list[str]:
    """The names of the options that set no parameter of a route. Raises Invalid for what is no provider's alone."""
    for name in options:
        if not _is_parameter(model, route, name):
            continue
        rule = route.rules[name]
        if name == "image" or (isinstance(rule, Emulated) and rule.by != "ignore"):
            raise Invalid(
                name,
                f"'{name}' is for all providers alike: send it beside 'provider_options', not in it.",
                "parameter_conflict",
            )
    return [name for name in options if not _is_parameter(model, route, name)]


def _is_parameter(model: Model, route: Route, name: str) -> bool:
    return name in route.rules and (name in model.params or name in route.params)
