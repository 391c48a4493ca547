"""Turns a request and a route's rules into a plan: what is sent, how often, and how results are finished."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from normalization.images.encode import keeping_density
from normalization.images.fitting import resize_notes
from normalization.parameters.addresses import address_of, is_address, texts_in
from normalization.parameters.coerce import InvalidValue
from normalization.parameters.convert import CONVERTERS, STEPPED, Converted, NoSuchValue
from normalization.parameters.emulate import EMULATIONS, ORDER, Effect, EmulationRequest
from normalization.parameters.nesting import excerpt
from normalization.parameters.reshaping import Shaped, conflict, differs, shaped
from normalization.parameters.rules import ConvertedRule, EmulatedRule, Param, Rule
from normalization.parameters.schema import Model, Route, target_of
from normalization.parameters.sizing import Geometry, OutOfReach, geometry, parse_size, resizing, scaled
from normalization.parameters.transparency import TransparencyPlan, TransparencyUnsupported, images, plan_transparency
from normalization.parameters.undeclared import ignored, meant_too, overridden, undeclared, warnings_of
from normalization.values import Announced, Image, ImageRequest, Plan, Resize, Sending, Size, Step, Value


class Ineligible(Exception):
    """This route cannot serve the request; another may. `param` names the parameter in question."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param
        self.message = message


def check(model: Model, request: ImageRequest, denied: frozenset[str]) -> None:
    """Refuse what no route of the model accepts. Raises InvalidValue."""
    if len(request.images) > model.max_images:
        raise InvalidValue(
            "image",
            f"{model.id} accepts {_count(model.max_images)}, but got {len(request.images)}.",
            "too_many_images",
        )
    for name in (*request.extra, *(n for options in request.provider_options.values() for n in options)):
        if name in denied:
            raise InvalidValue(
                name,
                f"'{name}' is refused on every route: it makes a provider fetch or call a URL chosen by the client.",
                "parameter_refused",
            )
    for route in model.routes.values():
        clash = conflict(route.geometry, request.params)
        if clash is not None and parse_size(request.params.get("size")) is not None:
            raise InvalidValue(
                clash,
                f"'{clash}' and 'size' cannot be combined: '{clash}' changes the shape of the result in a way that "
                f"only {route.provider} knows. Send one of the two.",
                "parameter_conflict",
            )
        options = request.provider_options.get(route.provider, {})
        for name in (*request.extra, *undeclared(model, route, options)):
            if name in route.writes:
                raise InvalidValue(
                    name,
                    f"'{name}' is {route.provider}'s field for '{route.writes[name]}': "
                    f"send '{route.writes[name]}' instead.",
                    "parameter_conflict",
                )


def plan(
    model: Model, route: Route, request: ImageRequest, announced: Announced | None = None, *, tell: bool = True
) -> Plan:
    """Plan how this route serves the request.

    `announced` are the inputs announced by the operator's worker, None for a cloud provider. With `tell`, the plan has
    a note for each undeclared field that is passed on. Raises Ineligible if this route cannot serve the request,
    InvalidValue if no route could.
    """
    request = overridden(model, route, request)
    unknown: list[str] = []
    if announced is not None:
        route, request, unknown = _as_announced(model, route, request, announced)
    declared = {**model.params, **route.params}
    defaults = _defaults(route, declared)
    values = {**defaults, **{name: value for name, value in request.params.items() if name in declared}}
    values["image"] = request.images[0] if model.max_images == 1 else list(request.images)
    given = frozenset(request.params)
    shaping = _shaping(model, route, request, values)
    shape = _geometry(model, route, request, values, shaping)
    if model.scaled_by is not None:
        values[model.scaled_by] = shape.factor
    notes = [*([route.degraded] if route.degraded else []), *request.notes]
    notes += shape.notes
    notes += [*_unsupported_notes(model, route, request), *unknown]
    notes += warnings_of(model, route, request) if tell else []
    emulation_request = EmulationRequest(values=values, given=given, defaults=defaults, geometry=shape)
    effect = _emulate(route, emulation_request)
    payloads, means, seeds = _payloads(route, request, values, declared, effect.copies)
    likely = _output(model, shape, means)
    output = likely if shape.known else None
    alpha = _alpha(model, route, request, effect)
    steps = (*alpha.steps, *_sized(route, shape, effect), *effect.steps)
    steps, kept = keeping_density(steps, request.density)
    finish = tuple(step for step in steps if shape.sized or not isinstance(step, Resize) or step.size != output)
    notes += [
        *_resize_notes(shape, output, finish),
        *alpha.notes,
        *_conversion_notes(route, values, means),
        *effect.notes,
    ]
    notes += [*kept, *_duplicate_notes(route, effect)]
    return Plan(
        calls=payloads,
        pictures_per_call=1 if isinstance(route.rules.get("n"), EmulatedRule) else cast("int", values.get("n", 1)),
        output=output,
        likely=likely,
        delivered=_delivered(output, finish),
        finish=finish,
        sending=_sending(route, request, alpha),
        notes=tuple(notes),
        seeds=seeds,
        work=route.price.factor({**values, **means}),
    )


def _alpha(model: Model, route: Route, request: ImageRequest, effect: Effect) -> TransparencyPlan:
    try:
        return plan_transparency(model, route, request, effect.steps)
    except TransparencyUnsupported:
        raise Ineligible("background", "drops the transparency of images") from None


def _sending(route: Route, request: ImageRequest, alpha: TransparencyPlan) -> Sending | None:
    """How the request's images are prepared; None if they are sent unchanged. Raises Ineligible."""
    takes = route.input
    for image in images(request):
        if (reason := takes.refuses(image.width, image.height)) is not None:
            raise Ineligible("image", reason)
    large = takes.max_bytes is not None and any(len(image.data) > takes.max_bytes for image in images(request))
    foreign = any(image.format not in takes.formats for image in images(request))
    if not (large or foreign or alpha.split or alpha.flatten):
        return None
    return Sending(flatten=alpha.flatten, split=alpha.split, max_bytes=takes.max_bytes, formats=takes.formats)


def _defaults(route: Route, declared: Mapping[str, Param]) -> dict[str, Value]:
    """The values sent when the client gives none: the route's own default, else the parameter's."""
    own = {name: rule.default for name, rule in route.rules.items() if rule.default is not None}
    defaults = {name: own.get(name, param.default) for name, param in declared.items()}
    return cast("dict[str, Value]", {name: value for name, value in defaults.items() if value is not None})


def _shaping(model: Model, route: Route, request: ImageRequest, values: Mapping[str, Value]) -> Shaped:
    """How the parameters change the size. Raises Ineligible if that cannot be combined with a requested size."""
    image = request.images[0]
    sent = {name: values.get(name) for name, rule in route.rules.items() if target_of(name, rule) is not None}
    source = Size(width=image.width, height=image.height)
    undeclared_fields = {**request.extra, **request.provider_options.get(route.provider, {})}
    if parse_size(values.get("size")) is not None and (name := conflict(route.geometry, sent)) is not None:
        raise Ineligible(name, f"cannot combine 'size' with {name}, which changes the shape of the result")
    return shaped(route.geometry, source, sent, undeclared_fields, model.reshaping)


def _geometry(
    model: Model, route: Route, request: ImageRequest, values: Mapping[str, Value], shaping: Shaped
) -> Geometry:
    image = request.images[0]
    source = Size(width=image.width, height=image.height)
    try:
        return geometry(model, source, values, frozenset(request.params), shaping)
    except OutOfReach:
        # Not every route resizes the input first: another one may reach the size.
        options = request.provider_options
        routes = ((route.geometry, options.get(route.provider, {})) for route in model.routes.values())
        if not any(differs(reshaping, {**request.params, **own}) for reshaping, own in routes):
            raise
        raise Ineligible("size", f"does not enlarge {shaping.source} to the 'size' {values.get('size')}") from None


def _sized(route: Route, shape: Geometry, effect: Effect) -> tuple[Step, ...]:
    """A provider with its own size parameter comes near the size; the requested size is delivered exactly."""
    rule = route.rules.get("size")
    if not shape.sized or rule is None or any(isinstance(step, Resize) for step in effect.steps):
        return ()
    return resizing(shape, None)


def _delivered(output: Size | None, finish: tuple[Step, ...]) -> Size | None:
    """The size that the client receives; None if it depends on the provider's result."""
    last = next((step for step in finish if isinstance(step, Resize)), None)
    return output if last is None else None if last.mode == "fit" else last.size


def _resize_notes(shape: Geometry, output: Size | None, finish: tuple[Step, ...]) -> tuple[str, ...]:
    """Notes on how a result of known size is fitted into a requested size of another aspect ratio."""
    if output is None or not shape.sized or shape.mode == "fit":
        return ()
    return tuple(note for step in finish if isinstance(step, Resize) for note in resize_notes(output, step))


def _unsupported_notes(model: Model, route: Route, request: ImageRequest) -> list[str]:
    """Notes on parameters that this route does not have. Raises Ineligible for an image, which must not be dropped."""
    notes = []
    for name, value in request.params.items():
        if name in model.params or name in route.params:
            continue
        where = " and ".join(model.routes_with(name))
        if isinstance(value, Image):
            raise Ineligible(name, f"does not support {name} (only {where} does)")
        notes.append(f"{name} was ignored: only {where} supports it.")
    if route.strict and request.extra:
        name = next(iter(request.extra))
        raise Ineligible(name, f"does not accept undeclared fields such as {excerpt(name)}{meant_too(model, name)}")
    return notes


def _as_announced(
    model: Model, route: Route, request: ImageRequest, announced: Announced
) -> tuple[Route, ImageRequest, list[str]]:
    """The route and the request reduced to the inputs that the worker announces, and a note on each ignored value.

    A worker downloads any URL it receives, from inside the operator's network, so it is sent none.
    """
    _refuse_addresses(route, request)
    options = request.provider_options.get(route.provider, {})
    unknown = {name for name in (*request.extra, *options) if announced.inputs is None or not announced.takes(name)}
    notes = ignored(model, unknown)
    rules = dict(route.rules)
    for name, rule in route.rules.items():
        target = target_of(name, rule)
        if target is None or announced.takes(target.partition(".")[0]):
            continue
        if name in ("image", model.scaled_by) or isinstance(request.params.get(name), Image):
            raise Ineligible(name, f"has a worker without an input for {name}")
        rules[name] = EmulatedRule(rule="emulated", by="ignore")
    fixed = {name: value for name, value in route.fixed.items() if announced.takes(name)}
    kept = {name: value for name, value in options.items() if name not in unknown}
    extra = {name: value for name, value in request.extra.items() if name not in unknown}
    request = replace(request, extra=extra, provider_options={**request.provider_options, route.provider: kept})
    return route.model_copy(update={"rules": rules, "fixed": fixed}), request, notes


def _refuse_addresses(route: Route, request: ImageRequest) -> None:
    reason = (
        "accepts no URLs, because its worker would fetch them: send images as files, in a parameter that takes an image"
    )
    for fields in (request.extra, request.provider_options.get(route.provider, {})):
        for name, value in fields.items():
            if any(address_of(text) is not None for text in texts_in(value)):
                raise Ineligible(name, reason)
    for name, value in request.params.items():
        if name in route.rules and target_of(name, route.rules[name]) and any(map(is_address, texts_in(value))):
            raise Ineligible(name, reason)


def _emulate(route: Route, request: EmulationRequest) -> Effect:
    by_name: dict[str, list[str]] = {}
    for name, rule in route.rules.items():
        if isinstance(rule, EmulatedRule):
            _check_bounds(name, rule, request.values.get(name))
            by_name.setdefault(rule.by, []).append(name)
    effects = [EMULATIONS[by](request, tuple(by_name[by])) for by in ORDER if by in by_name]
    return Effect(
        copies=max((effect.copies for effect in effects), default=1),
        steps=tuple(step for effect in effects for step in effect.steps),
        notes=tuple(note for effect in effects for note in effect.notes),
    )


def _payloads(
    route: Route,
    request: ImageRequest,
    values: Mapping[str, Value],
    declared: Mapping[str, Param],
    copies: int,
) -> tuple[tuple[Mapping[str, Value], ...], Mapping[str, Value], tuple[int, ...]]:
    """The payload of each call (only the seed differs), the values that they are equivalent to, and the seeds."""
    means: dict[str, Value] = {}
    payload: dict[str, Value] = cast("dict[str, Value]", dict(route.fixed))
    for name, rule in route.rules.items():
        target, value = target_of(name, rule), values.get(name)
        if target is None or value is None or name == "seed":
            continue
        converted = _convert(name, rule, value)
        means[name] = converted.means
        if converted.value is not None:
            _put(payload, target, converted.value)
    payload.update(request.extra)
    payload.update(request.provider_options.get(route.provider, {}))
    drawn = route.rules.get("seed")
    target = target_of("seed", drawn) if drawn is not None else None
    if drawn is None or target is None:
        return (payload,) * copies, means, ()
    calls = []
    seeds = tuple(_seed(request.seed + copy, declared["seed"]) for copy in range(copies))
    for seed in seeds:
        call = dict(payload)
        _put(call, target, _convert("seed", drawn, seed).value)
        calls.append(call)
    return tuple(calls), means, seeds


def _convert(name: str, rule: Rule, value: Value) -> Converted:
    if not isinstance(rule, ConvertedRule):
        _check_bounds(name, rule, value)
        return Converted(value, value)
    if rule.using not in STEPPED:
        _check_bounds(name, rule, value)
    try:
        return CONVERTERS[rule.using](value, rule)
    except NoSuchValue as reason:
        raise Ineligible(name, f"does not support {name} {_show(value)}: {reason}") from None


def _check_bounds(name: str, rule: Rule, value: Value) -> None:
    if value is not None and not rule.admits(value):
        raise Ineligible(name, f"accepts {name} {rule.describe()}, not {_show(value)}")


def _seed(seed: int, param: Param) -> int:
    """Wrap a base seed plus the image's number into the parameter's range, so that distinct seeds stay distinct."""
    low, high = int(param.min or 0), int(param.max if param.max is not None else 2**31 - 1)
    return low + (seed - low) % (high - low + 1)


def _put(payload: dict[str, Value], target: str, value: Value) -> None:
    key, _, rest = target.partition(".")
    if rest:  # copied: the calls of one plan share their nested values
        value, inner = dict(cast("Mapping[str, Value]", payload.get(key) or {})), value
        _put(value, rest, inner)
    payload[key] = value


def _output(model: Model, shape: Geometry, means: Mapping[str, Value]) -> Size | None:
    if model.scaled_by is None:
        return None
    return scaled(shape.source, float(cast("float", means.get(model.scaled_by, shape.factor))))


def _conversion_notes(route: Route, values: Mapping[str, Value], means: Mapping[str, Value]) -> list[str]:
    return [
        f"{name} {_show(values[name])} ran as {_show(meant)} on {route.provider}."
        for name, meant in means.items()
        if not isinstance(meant, (Image, list)) and meant != values[name]
    ]


def _duplicate_notes(route: Route, effect: Effect) -> list[str]:
    if effect.copies > 1 and "seed" in route.rules and isinstance(route.rules["seed"], EmulatedRule):
        return [f"The {effect.copies} images are identical: this route is deterministic."]
    return []


def _count(images: int) -> str:
    return "one image" if images == 1 else f"at most {images} images"


def _show(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)[:40]
