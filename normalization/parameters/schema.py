"""A model and its routes, as a file of `config/models/` describes them."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from normalization.parameters.names import near
from normalization.parameters.reshaping import Reshaping, problems
from normalization.parameters.rules import ConvertedRule, Frozen, ModelProblem, Param, RenamedRule, Rule, RuleProblem
from normalization.values import Value

Strategy = Literal["cheapest", "fastest", "balanced", "order"]


class Preference(Frozen):
    """`[routing]` of a model's file; its keys mean the same as in a request's `routing`.

    `order` lists the first choices, by provider or route. `sort` is the strategy for the others, None for the gateway's
    own. `max_cost` is in US dollars for a whole request. Without `allow_fallbacks`, only the first candidate is tried.
    `only` and `ignore` do not exist here: the routes of the model are those of the file.
    """

    order: tuple[str, ...] = ()
    sort: Strategy | None = None
    max_cost: float | None = Field(default=None, ge=0)
    allow_fallbacks: bool = True


Mode = Literal["upscale", "edit"]
Share = Annotated[float, Field(gt=0)] | Mapping[str, Annotated[float, Field(ge=0)]]


class Price(Frozen):
    """The price of one upstream call, in US dollars: the sum of the parts that are given.

    `per_second` is multiplied by the provider's run time, estimated as `seconds` plus `seconds_per_output_megapixel`
    for each megapixel of output. `megapixel_step` rounds megapixels up to its multiples first. `minimum` is the lowest
    amount billed for a call.

    `work` scales the price with parameters that the route is sent. A number is the parameter's value at which the
    figures hold; the price grows in proportion to it. A table has a factor for each value, 1 for values that it does
    not list. `seconds`, the constant part of the run time, and `minimum` are not scaled.
    """

    per_image: float | None = Field(None, ge=0)
    per_output_megapixel: float | None = Field(None, ge=0)
    per_input_megapixel: float | None = Field(None, ge=0)
    per_second: float | None = Field(None, ge=0)
    seconds: float = Field(0, ge=0)
    seconds_per_output_megapixel: float = Field(0, ge=0)
    megapixel_step: float | None = Field(None, gt=0)
    minimum: float = Field(0, ge=0)
    work: Mapping[str, Share] = Field(default_factory=dict)

    def factor(self, values: Mapping[str, Value]) -> float:
        """The factor for these values of the parameters; a parameter without a value does not change it."""
        product = 1.0
        for name, share in self.work.items():
            value = values.get(name)
            if isinstance(share, Mapping):
                product *= share.get(_word(value), 1.0)
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                product *= value / share
        return product

    @model_validator(mode="after")
    def _priced(self) -> Price:
        parts = (self.per_image, self.per_output_megapixel, self.per_input_megapixel, self.per_second)
        if all(part is None for part in parts):
            raise ValueError(
                "a price needs per_image, per_output_megapixel, per_input_megapixel or per_second; "
                "if a call is free, it says per_image = 0"
            )
        if self.per_second is not None and not (self.seconds or self.seconds_per_output_megapixel):
            raise ValueError("per_second needs seconds or seconds_per_output_megapixel to estimate with")
        return self


class Input(Frozen):
    """The provider's limits on input images: bytes, pixels, pixels per side, and accepted formats."""

    max_bytes: int | None = Field(default=None, gt=0)
    max_pixels: int | None = Field(default=None, gt=0)
    max_side: int | None = Field(default=None, gt=0)
    formats: tuple[Literal["png", "jpeg", "webp"], ...] = ("png", "jpeg", "webp")

    def refuses(self, width: int, height: int) -> str | None:
        """Why the route does not accept an image of this size in pixels; None if it does."""
        if self.max_side is not None and max(width, height) > self.max_side:
            return f"takes images of at most {self.max_side:,} pixels a side, and this one has {width}x{height}"
        if self.max_pixels is not None and width * height > self.max_pixels:
            most, here = self.max_pixels / 1e6, width * height / 1e6
            return f"takes images of at most {most:g} megapixels, and this one has {here:.1f}"
        return None


class Route(Frozen):
    """One way to a provider.

    `model` is the provider's name for it, `options` go to the adapter, `fixed` fields are part of every payload.
    `params` are those that not every route has: the file's `[optional]` that the route names, and its own. `degraded`
    is a sentence on how the route falls short of what the model's name promises. `alpha` says whether results keep the
    transparency of the input, `input` which images are accepted. A `strict` route accepts no undeclared fields.
    `geometry` names the parameters, besides the scale factor, that change the size of a result. `source` is the
    reference for the facts about the route.
    """

    name: str
    provider: str
    model: str
    price: Price
    rules: Mapping[str, Rule]
    params: Mapping[str, Param] = Field(default_factory=dict)
    options: Mapping[str, JsonValue] = Field(default_factory=dict)
    fixed: Mapping[str, JsonValue] = Field(default_factory=dict)
    alpha: Literal["keep", "drop"] = "drop"
    input: Input = Input()
    strict: bool = False
    geometry: Reshaping = Reshaping()
    degraded: str | None = None
    source: str = ""

    @cached_property
    def writes(self) -> Mapping[str, str]:
        """Payload field (the outermost name) to the parameter that is sent in it; `fixed` fields to themselves."""
        fields = {field: field for field in self.fixed}
        for name, rule in self.rules.items():
            if (target := target_of(name, rule)) is not None:
                fields[target.partition(".")[0]] = name
        return fields


class Model(Frozen):
    """A model as clients see it, with every route that can serve it.

    `scaled_by` names the scale factor: the output is the input times its value, per side. `max_images` is the number of
    images that one request may carry. `reshaping` names undeclared fields that make the size of a result unpredictable.
    `default_response_format`, `deadline_s` (in seconds) and `on_disconnect` override the gateway's settings, `routing`
    its strategy; a request's own `routing` overrides that.
    """

    id: str
    doc: str
    owned_by: str
    created: datetime.date
    modes: tuple[Mode, ...]
    params: Mapping[str, Param]
    routes: Mapping[str, Route]
    scaled_by: str | None = None
    max_images: int = Field(1, ge=1)
    reshaping: frozenset[str] = frozenset()
    default_response_format: Literal["url", "b64_json", "both"] | None = None
    deadline_s: float | None = Field(None, gt=0)
    on_disconnect: Literal["finish", "cancel"] | None = None
    routing: Preference = Preference()

    @model_validator(mode="after")
    def _whole(self) -> Model:
        if wrong := list(_problems(self)):
            raise RuleProblem(wrong)
        return self

    def param(self, name: str) -> Param | None:
        """The declaration of a parameter: the model's, or that of the first route that declares it."""
        if name in self.params:
            return self.params[name]
        return next((route.params[name] for route in self.routes.values() if name in route.params), None)

    def routes_with(self, name: str) -> tuple[str, ...]:
        """The routes that have a parameter."""
        return tuple(route.name for route in self.routes.values() if name in self.params or name in route.params)


def target_of(name: str, rule: Rule) -> str | None:
    """The payload field that a rule writes, dotted where it nests; None for an emulated parameter."""
    if isinstance(rule, RenamedRule):
        return rule.to
    if isinstance(rule, ConvertedRule):
        return rule.to or name
    return name if rule.rule == "passthrough" else None


def unpaired(
    params: Collection[str], route: str, own: Collection[str], rules: Collection[str]
) -> Iterator[ModelProblem]:
    """Parameters without a rule on a route, and rules without a parameter. `own` are the route's own parameters."""
    unknown = sorted(set(rules) - set(params) - set(own))
    if missing := sorted(set(params) - set(own) - set(rules)):
        everywhere = (
            "; or one rule for all routes in [rules] of standard.toml. A parameter that only some routes have is "
            "declared in [optional], or in their [routes.NAME.params] instead of in [params]"
        )
        yield _no_rule(route, missing, unknown, everywhere)
    if missing := sorted(set(own) - set(rules)):
        otherwise = f". If the route does not have it, take it out of [routes.{route}.params]"
        yield _no_rule(route, missing, unknown, otherwise)
    if unknown:
        hints = (near(name, {*params, *own} - set(rules)) for name in unknown)
        meant = ", ".join(dict.fromkeys(hint for hint in hints if hint))
        yield ModelProblem(
            (),
            f"routes.{route}.rules has a rule for {', '.join(unknown)}, which no parameter declares: "
            f"{f'did you mean {meant}? Otherwise ' if meant else ''}declare it in [params], in [optional] if only some "
            f"routes have it, or in [routes.{route}.params] if this route alone has it, or delete the rule",
        )


def _no_rule(route: str, names: list[str], unknown: list[str], otherwise: str) -> ModelProblem:
    one = names[0]
    slip = next((slip for name in names if (slip := near(name, unknown))), None)
    return ModelProblem(
        (),
        f"routes.{route}.rules has no rule for the parameter{'s' if len(names) > 1 else ''} {', '.join(names)}: "
        f'write {one} = {{ rule = "passthrough" }} there, or add "{one}" to routes.{route}.passthrough, if the '
        'provider takes it unchanged; { rule = "emulated", by = "ignore" } if the provider has no such parameter'
        f"{otherwise}{f' (did you mean it by {slip}?)' if slip else ''}",
    )


def _problems(model: Model) -> Iterator[ModelProblem]:
    if not model.routes:
        yield ModelProblem((), "a model needs at least one route")
    if model.scaled_by is not None and model.scaled_by not in model.params:
        yield ModelProblem((), f"scaled_by names {model.scaled_by!r}, which is not a parameter of [params]")
    names = {*model.routes, *(route.provider for route in model.routes.values())}
    if strange := [name for name in model.routing.order if name not in names]:
        known = f"routes or providers of it: {', '.join(sorted(names))}"
        yield ModelProblem(("routing", "order"), ", ".join(strange), known)
    for route in model.routes.values():
        yield from unpaired(model.params, route.name, route.params, route.rules)
        yield from _declared_otherwise(model, route)
        yield from _written_twice(route)
        yield from _priced_by_nothing(model, route)
        sent = [name for name, rule in route.rules.items() if target_of(name, rule) is not None]
        for wrong in problems(route.geometry, sent, {**model.params, **route.params}):
            yield ModelProblem((), f"routes.{route.name}.geometry {wrong}")


def _priced_by_nothing(model: Model, route: Route) -> Iterator[ModelProblem]:
    """Prices that depend on a parameter that the route is not sent, or on values that it does not have."""
    declared = {**model.params, **route.params}
    for name, share in route.price.work.items():
        where = f"routes.{route.name}.price.work"
        rule, param = route.rules.get(name), declared.get(name)
        if rule is None or param is None or target_of(name, rule) is None:
            yield ModelProblem((), f"{where} names {name}, which is no parameter that this route is sent")
        elif isinstance(share, Mapping):
            words = {_word(choice) for choice in param.choices or ((True, False) if param.type == "boolean" else ())}
            if strange := sorted(set(share) - words):
                yield ModelProblem((), f"{where}.{name} has a factor for {', '.join(strange)}, which is no value of it")
        elif param.type not in ("integer", "number"):
            yield ModelProblem(
                (), f"{where}.{name} is a number, and {name} is none: write a table with a factor for each value"
            )


def _word(value: Value) -> str:
    """A value as a key of a TOML table."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _declared_otherwise(model: Model, route: Route) -> Iterator[ModelProblem]:
    if twice := sorted(set(model.params) & set(route.params)):
        yield ModelProblem(
            (), f"routes.{route.name}.params declares {', '.join(twice)}, which the model declares already"
        )
    for name, param in route.params.items():
        other = model.param(name)
        if other is not None and other.type != param.type:
            yield ModelProblem(
                ("routes", route.name, "params", name, "type"),
                f"declared of type {param.type} here, of type {other.type} on another route",
            )


def _written_twice(route: Route) -> Iterator[ModelProblem]:
    seen: dict[str, str] = dict.fromkeys(route.fixed, "fixed")
    for name, rule in route.rules.items():
        target = target_of(name, rule)
        if target is None:
            continue
        if target in seen:
            yield ModelProblem(
                (), f"routes.{route.name} writes the field {target} twice: for {seen[target]} and for {name}"
            )
        seen[target] = name
