"""Undeclared fields: which are passed on, which are refused, and which declared name may have been meant.

They pass to the provider unchanged, which is their purpose; but a misspelt parameter looks the same, and is billed.
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
    """Refuse a known name of how much work a call is, at any depth of what nobody declared. Raises InvalidValue.

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
    raise InvalidValue(
        name,
        f"'{excerpt(name)}' is refused: it would make a call dearer than its estimate. {hint}",
        "parameter_refused",
    )


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
    """Names of the options that set no parameter of a route. Raises InvalidValue for what is no provider's alone."""
    for name in options:
        if not _is_parameter(model, route, name):
            continue
        rule = route.rules[name]
        if name == "image" or (isinstance(rule, EmulatedRule) and rule.by != "ignore"):
            raise InvalidValue(
                name,
                f"'{name}' is for all providers alike: send it beside 'provider_options', not in it.",
                "parameter_conflict",
            )
    return [name for name in options if not _is_parameter(model, route, name)]


def _is_parameter(model: Model, route: Route, name: str) -> bool:
    return name in route.rules and (name in model.params or name in route.params)


Undeclared = Literal["pass", "warn", "refuse"]
"""What becomes of such fields: passed on in silence, passed on with a warning, or refused."""

# What is less alike is another word: output_quality is no slip for output_format.
_ALIKE = 0.75
# In provider_options a provider's own names are at home, and prompt_2 is not meant to be prompt.
_ALIKE_IN_OPTIONS = 0.9
_ENVELOPE = ("model", "provider_options")
# A request with more of them is no slip, and each search takes time.
_MOST = 16
# Of more of them no more is told than how many there are: an answer would be many times the request.
_MOST_TOLD = 1000
# Longer than every parameter's name: a longer text is not looked for, nor kept in the cache.
_LONGEST = 64


def warnings_of(model: Model, route: Route, request: ImageRequest) -> list[str]:
    """A sentence on each undeclared field that goes to the route's provider.

    Those of `provider_options` are meant for it, so only a near miss of a parameter's name is told of them.
    """
    extra = (
        f"{_passed(model, route, excerpt(name))}{meant(model, name) if count < _MOST else ''}"
        for count, name in enumerate(islice(request.extra, _MOST_TOLD))
    )
    options = list(request.provider_options.get(route.provider, {}))[:_MOST]
    hints = {name: meant(model, name, _ALIKE_IN_OPTIONS) for name in options}
    missed = (
        f"{_passed(model, route, f'{excerpt(name)} in provider_options')}{hint}" for name, hint in hints.items() if hint
    )
    return [*extra, *_more(len(request.extra), f"were passed to {route.provider} as they are"), *missed]


def ignored(model: Model, names: Iterable[str]) -> list[str]:
    """A sentence on each field that the worker at the end of a route does not take."""
    ordered = sorted(names)
    return [
        f"{excerpt(name)} was ignored: the worker announces no such input.{meant(model, name) if count < _MOST else ''}"
        for count, name in enumerate(ordered[:_MOST_TOLD])
    ] + _more(len(ordered), "were ignored as well")


def refuse(model: Model, request: ImageRequest) -> None:
    """Raise Invalid for the first undeclared field beside `provider_options`."""
    for name in request.extra:
        shown = excerpt(name)
        raise InvalidValue(
            name,
            f"Unknown parameter: '{shown}'. {model.id} has none of that name.{meant(model, name)} A provider's own "
            f"field goes into 'provider_options', such as provider_options[{_provider(model)}][{shown}].",
            "unknown_parameter",
        )


def meant(model: Model, name: str, alike: float = _ALIKE) -> str:
    """` Did you mean …?` where a parameter of the model has a name that is much like this one; else nothing."""
    found = _found(model, name, alike)
    return "" if found is None else f" Did you mean {found}?"


def meant_too(model: Model, name: str) -> str:
    """The same inside of a sentence, in brackets."""
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
    """Every parameter of the model, those of single routes included, and what stands beside parameters."""
    yield from dict.fromkeys((*model.params, *(name for route in model.routes.values() for name in route.params)))
    yield from _ENVELOPE


def _more(count: int, became: str) -> list[str]:
    """The rest of very many fields, in one sentence."""
    return [f"{count - _MOST_TOLD} further undeclared fields {became}."] if count > _MOST_TOLD else []


def _passed(model: Model, route: Route, shown: str) -> str:
    return f"{shown} is not a parameter of {model.id}; it was passed to {route.provider} as it is."


def _provider(model: Model) -> str:
    return next(iter(model.routes.values())).provider
