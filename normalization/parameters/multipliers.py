"""Undeclared fields that would make a call dearer than its estimate."""

from __future__ import annotations

from collections.abc import Mapping

from normalization.parameters.coerce import Invalid
from normalization.parameters.names import fields_in, folded
from normalization.parameters.nesting import excerpt
from normalization.parameters.schema import Model
from normalization.values import ImageRequest


def check_multipliers(model: Model, request: ImageRequest, multipliers: Mapping[str, str]) -> None:
    """Refuse a known name of how much work a call is, at any depth of what nobody declared. Raises Invalid.

    `multipliers` gives for each name the parameter to send instead. What a model or one of its routes declares may be
    sent: its price is what the config says.
    """
    known = {folded(name): instead for name, instead in multipliers.items()}
    for name, _ in fields_in(request.extra):
        _refuse(name, known, model)
    for provider, options in request.provider_options.items():
        routes = [route for route in model.routes.values() if route.provider == provider]
        for option, value in options.items():
            if option not in model.params and not any(option in {*route.params, *route.writes} for route in routes):
                _refuse(option, known, model)
            for name, _ in fields_in(value):
                _refuse(name, known, model)


def _refuse(name: str, known: Mapping[str, str], model: Model) -> None:
    instead = known.get(folded(name))
    if instead is None:
        return
    hint = f"Send '{instead}' instead." if instead in model.params else f"{model.id} has no parameter for that."
    raise Invalid(
        name,
        f"'{excerpt(name)}' is refused: it would make a call dearer than its estimate. {hint}",
        "parameter_refused",
    )
