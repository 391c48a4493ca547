"""Undeclared fields: which are passed on, which are refused, and which declared name was probably meant.

They pass to the provider unchanged, which is their purpose; but a misspelt parameter looks the same, and costs money.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Literal, cast

from normalization.parameters.coerce import InvalidValue
from normalization.parameters.names import fields_in, folded, near
from normalization.parameters.nesting import excerpt
from normalization.parameters.rules import EmulatedRule
from normalization.parameters.schema import Model, Route
from normalization.values import ImageRequest, Value


def check_multipliers(model: Model, request: ImageRequest, multipliers: Mapping[str, str]) -> None:
    """Refuse undeclared fields, at any depth, that are known to multiply the work of a call. Raises InvalidValue.

    `multipliers` maps each such name to the parameter to send instead. Declared parameters are allowed: the config
    states their price.
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
    hint = f"Use '{instead}' instead." if instead in model.params else f"{model.id} has no parameter for this."
    raise InvalidValue(
        name,
        f"'{excerpt(name)}' is refused: it would make the call cost more than its estimate. {hint}",
        "parameter_refused",
    )


def overridden(model: Model, route: Route, request: ImageRequest) -> ImageRequest:
    """The request for one route's provider: parameters in its `provider_options` override the others."""
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
    """The options that are not parameters of a route. Raises InvalidValue for parameters shared by all providers."""
    for name in options:
        if not _is_parameter(model, route, name):
            continue
        rule = route.rules[name]
        if name == "image" or (isinstance(rule, EmulatedRule) and rule.by != "ignore"):
            raise InvalidValue(
                name,
                f"'{name}' applies to all providers: send it outside 'provider_options'.",
                "parameter_conflict",
            )
    return [name for name in options if not _is_parameter(model, route, name)]


def _is_parameter(model: Model, route: Route, name: str) -> bool:
    return name in route.rules and (name in model.params or name in route.params)


Undeclared = Literal["pass", "warn", "refuse"]
"""How undeclared fields are treated: passed on silently, passed on with a warning, or refused."""

# Less similar names are different words: output_quality is not a misspelt output_format.
_ALIKE = 0.75
# provider_options is for the provider's own names, where prompt_2 does not mean prompt.
_ALIKE_IN_OPTIONS = 0.9
_ENVELOPE = ("model", "provider_options")
# More undeclared fields than this are not misspellings, and each search takes time.
_MOST = 16
# Beyond this number, further fields are only counted: the response would be many times the request.
_MOST_LISTED = 1000
# Longer than any parameter's name: longer texts are not searched for, nor cached.
_LONGEST = 64


def warnings_of(model: Model, route: Route, request: ImageRequest) -> list[str]:
    """A warning for each undeclared field that is passed to the route's provider.

    Fields of `provider_options` are meant for it, so only those similar to a parameter's name get a warning.
    """
    extra = (
        f"{_passed(model, route, excerpt(name))}{meant(model, name) if count < _MOST else ''}"
        for count, name in enumerate(islice(request.extra, _MOST_LISTED))
    )
    options = list(request.provider_options.get(route.provider, {}))[:_MOST]
    hints = {name: meant(model, name, _ALIKE_IN_OPTIONS) for name in options}
    missed = (
        f"{_passed(model, route, f'{excerpt(name)} in provider_options')}{hint}" for name, hint in hints.items() if hint
    )
    return [*extra, *_more(len(request.extra), f"were passed to {route.provider} unchanged"), *missed]


def ignored(model: Model, names: Iterable[str]) -> list[str]:
    """A warning for each field that the route's worker does not accept."""
    ordered = sorted(names)
    return [
        f"{excerpt(name)} was ignored: the worker has no such input.{meant(model, name) if count < _MOST else ''}"
        for count, name in enumerate(ordered[:_MOST_LISTED])
    ] + _more(len(ordered), "were ignored as well")


def refuse(model: Model, request: ImageRequest) -> None:
    """Raise InvalidValue for the first undeclared field outside `provider_options`."""
    for name in request.extra:
        shown = excerpt(name)
        raise InvalidValue(
            name,
            f"Unknown parameter: '{shown}'. {model.id} has no such parameter.{meant(model, name)} Send a provider's "
            f"own field in 'provider_options', such as provider_options[{_provider(model)}][{shown}].",
            "unknown_parameter",
        )


def meant(model: Model, name: str, alike: float = _ALIKE) -> str:
    """` Did you mean …?` if a parameter of the model has a similar name; else ""."""
    found = _found(model, name, alike)
    return "" if found is None else f" Did you mean {found}?"


def meant_too(model: Model, name: str) -> str:
    """The same in brackets, for use within a sentence."""
    found = _found(model, name, _ALIKE)
    return "" if found is None else f" (did you mean {found}?)"


def _found(model: Model, name: str, alike: float) -> str | None:
    return _nearest(name, tuple(_names(model)), alike) if len(name) <= _LONGEST else None


@lru_cache(maxsize=1024)
def _nearest(name: str, known: tuple[str, ...], alike: float) -> str | None:
    spelt = folded(name)
    same = next((one for one in known if folded(one) == spelt), None)
    return same or near(name.lower(), known, alike)


def _names(model: Model) -> Iterator[str]:
    """All parameters of the model and of its routes, and the other fields of a request."""
    yield from dict.fromkeys((*model.params, *(name for route in model.routes.values() for name in route.params)))
    yield from _ENVELOPE


def _more(count: int, outcome: str) -> list[str]:
    """The number of fields beyond those listed, in one sentence."""
    return [f"{count - _MOST_LISTED} further undeclared fields {outcome}."] if count > _MOST_LISTED else []


def _passed(model: Model, route: Route, shown: str) -> str:
    return f"{shown} is not a parameter of {model.id}; it was passed to {route.provider} unchanged."


def _provider(model: Model) -> str:
    return next(iter(model.routes.values())).provider
