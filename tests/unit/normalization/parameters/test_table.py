"""Every cell of the table, one test each, from the cells themselves: what is declared is what happens."""

import math
from typing import Any, cast

import pytest

from gateway.settings.loader import SHIPPED, load
from normalization.parameters.coerce import InvalidValue
from normalization.parameters.convert import CONVERTERS, STEPPED
from normalization.parameters.plan import Ineligible, plan
from normalization.parameters.rules import ConvertedRule, EmulatedRule, Param, Rule
from normalization.parameters.schema import Model
from normalization.parameters.sizing import parse_size
from normalization.parameters.table import Cell, cells
from normalization.values import Header, Image, ImageRequest, Resize, Size, Transcode, Value

CONFIG = load(SHIPPED, {})
# Beside the shipped models one with every kind of bound, so that the rules for those are tested whatever ships.
BOUNDS = {"image": {"rule": "converted", "using": "input_url"}, "n": {"rule": "emulated", "by": "fan_out", "max": 2}}
MADE_UP = Model.model_validate(
    {
        "id": "made-up", "doc": "A model of the tests.", "owned_by": "tests", "created": "2026-01-01",
        "modes": ["upscale"], "scaled_by": "scale",
        "params": {
            "image": {"type": "image", "doc": "A picture.", "required": True},
            "n": {"type": "integer", "default": 1, "min": 1, "max": 10, "doc": "How many."},
            "scale": {"type": "number", "default": 2, "min": 1, "max": 16, "doc": "How large."},
            "style": {"type": "enum", "choices": ["soft", "hard", "wild"], "doc": "How."},
            "strength": {"type": "number", "min": 0, "max": 3, "doc": "How much."},
        },
        "routes": {
            "local": {
                "name": "local", "provider": "local", "model": "m", "price": {"per_image": 0},
                "rules": {
                    **BOUNDS,
                    "scale": {"rule": "converted", "using": "next_larger", "to": "in.factor", "choices": [1, 2, 4]},
                    "style": {"rule": "passthrough", "choices": ["soft", "hard"]},
                    "strength": {"rule": "renamed", "to": "power", "min": 1, "max": 2},
                },
            },
        },
    }
)  # fmt: skip


def small(most: float) -> Model:
    """A model that enlarges `most` times at most: as a whole on one route, by the route's own bounds on others."""
    standard = CONFIG.models["lanczos-bp"]
    names = ("image", "size", "size_mode")
    scales: dict[str, dict[str, Any]] = {
        "plain": {"rule": "renamed", "to": "factor"},
        "stepped": {"rule": "converted", "using": "next_larger", "choices": [1, most]},
        "bounded": {"rule": "passthrough", "min": 1, "max": (1 + most) / 2, "default": 1},
        "listed": {"rule": "passthrough", "choices": [most]},
        "large": {"rule": "passthrough", "min": most},
    }
    sizes = {"listed": {"rule": "passthrough", "choices": ["auto", f"{40 * most:g}x{40 * most:g}"]}}
    routes = {
        name: {
            "name": name, "provider": "local", "model": "m", "price": {"per_image": 0},
            "rules": {
                **{key: standard.routes["local"].rules[key].model_dump() for key in names},
                "size": sizes.get(name, {"rule": "emulated", "by": "resize"}),
                "scale": scale,
            },
        }
        for name, scale in scales.items()
    }  # fmt: skip
    scale = {"type": "number", "default": most, "min": 1, "max": most, "doc": "How large."}
    params = {**{key: standard.params[key].model_dump() for key in names}, "scale": scale}
    return Model.model_validate({**MADE_UP.model_dump(), "id": f"small-{most:g}", "params": params, "routes": routes})


MODELS = (*CONFIG.models.values(), MADE_UP, small(1.5), small(2))
CELLS = [cell for model in MODELS for cell in cells(model)]
PICTURE = Image(data=b"not looked into", header=Header(format="png", width=60, height=40))


def ask(cell: Cell, params: dict[str, Value]) -> ImageRequest:
    """A request for the cell's model with these parameters."""
    return ImageRequest(
        model=cell.model.id,
        images=(PICTURE,),
        params={name: value for name, value in params.items() if name != "image"},
        extra={},
        provider_options={},
        seed=cast("int", params.get("seed", 5)),
    )


def sample(cell: Cell) -> Value:
    """A value of the cell's parameter that its own bounds and its rule's admit; the default only where no other is."""
    param = cell.param
    low = max(bound for bound in (param.min, cell.rule.min, 1) if bound is not None)
    high = min(bound for bound in (param.max, cell.rule.max, low + 1) if bound is not None)
    values: dict[str, list[Value]] = {
        "image": [PICTURE],
        "integer": [int(high), int(low)],
        "number": [high, low],
        "boolean": [True, False],
        "string": ["some words", *(cell.rule.choices or ())],
        "enum": list(reversed(param.choices or ())),
        "object": [{"a": 1}],
        "array": [[1]],
    }
    known: dict[str, Value] = {"size": a_size(cell), "background": "#102030"}
    found = (v for v in values[param.type] if v != param.default and admits(cell, v))
    return known.get(cell.name) or next(found, cast("Value", param.default))


def a_size(cell: Cell) -> str:
    """A size of another shape than the picture's, that the cell's route takes and reaches within its own bounds."""
    rule = cell.route.rules.get("size")
    if rule is not None and rule.choices and not (isinstance(rule, ConvertedRule) and rule.using in STEPPED):
        return next(str(choice) for choice in rule.choices if choice != "auto")
    factor = 2.4
    if cell.model.scaled_by is not None:
        bounds = (cell.model.params[cell.model.scaled_by], cell.route.rules[cell.model.scaled_by])
        listed = [float(choice) for choice in bounds[1].choices or ()]
        most = min([b.max for b in bounds if b.max is not None] + [max(listed, default=math.inf)])
        least = max([b.min for b in bounds if b.min is not None] + [min(listed, default=1.0)])
        factor = max(least, min(most, factor))
    side = round(min(PICTURE.width, PICTURE.height) * factor)
    return f"{side}x{side}"


def another(rule: Rule) -> Value:
    """A value that is none of the rule's choices."""
    sizes = [size for choice in rule.choices or () if isinstance(choice, str) and (size := read_size(choice))]
    numbers = [float(choice) for choice in rule.choices or () if not isinstance(choice, str)]
    if sizes:
        return f"{max(size.width for size in sizes) + 1}x{sizes[0].height}"
    return max(numbers) + 1 if numbers else "wild"


def read_size(text: str) -> Size | None:
    """A size, if the text is one."""
    try:
        return parse_size(text)
    except InvalidValue:
        return None


def admits(cell: Cell, value: Value) -> bool:
    """Whether a rule's bounds, where they are bounds and not steps, let a value pass."""
    return is_stepped(cell) or cell.rule.admits(value)


def is_stepped(cell: Cell) -> bool:
    """Whether the rule's choices are what the provider is sent, not what callers may give."""
    return isinstance(cell.rule, ConvertedRule) and cell.rule.using in STEPPED


def dig(payload: Any, target: str) -> Value:
    """The value at a dotted place."""
    for key in target.split("."):
        payload = payload[key]
    return cast("Value", payload)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
def test_cell(cell: Cell) -> None:
    """A value reaches the provider as its rule says: as is, renamed, converted, or not at all but done here."""
    value = sample(cell)
    planned = plan(cell.model, cell.route, ask(cell, {cell.name: value}))
    payload = planned.calls[0]

    if isinstance(cell.rule, EmulatedRule):
        assert cell.name not in payload or cell.name in cell.route.fixed
        check_emulation(cell, value)
    elif isinstance(cell.rule, ConvertedRule):
        assert dig(payload, cell.target or "") == CONVERTERS[cell.rule.using](value, cell.rule).value
    else:
        assert dig(payload, cell.target or "") == value
        assert cell.kind == "passthrough" or cell.name not in payload


def check_emulation(cell: Cell, value: Value) -> None:
    """The effect of an emulated parameter, seen in the plan."""
    planned = plan(cell.model, cell.route, ask(cell, {cell.name: value}))
    by = cast("EmulatedRule", cell.rule).by
    formats = [step for step in planned.finish if isinstance(step, Transcode)]
    if by == "fan_out":
        assert len(planned.calls) == value
    elif by == "resize":
        with_size = plan(cell.model, cell.route, ask(cell, {"size": a_size(cell), cell.name: value}))
        assert any(isinstance(s, Resize) and value in (str(s.size), s.mode) for s in with_size.finish)
    elif by == "transcode":
        lossy = plan(cell.model, cell.route, ask(cell, {"output_format": "webp", cell.name: value}))
        step = next(step for step in lossy.finish if isinstance(step, Transcode))
        assert value in (step.format, step.quality, step.background)
        assert len(formats) == 1
    elif by == "ignore":
        assert any(note.startswith(f"{cell.name} was ignored") for note in planned.notes)
    else:
        assert by in ("deliver", "choose", "notify")


# Every size has a nearest aspect ratio: those choices bound nothing.
BOUNDED = [
    cell
    for cell in CELLS
    if (cell.rule.min is not None or cell.rule.max is not None or cell.rule.choices)
    and not (isinstance(cell.rule, ConvertedRule) and cell.rule.using == "aspect_ratio")
]


@pytest.mark.parametrize("cell", BOUNDED, ids=lambda cell: cell.id)
def test_bounds_choose_the_route(cell: Cell) -> None:
    """A value outside a rule's bounds makes the route ineligible and names the parameter; nothing is clamped."""
    rule = cell.rule
    if isinstance(rule, ConvertedRule) and is_stepped(cell):
        outside: Value = max(float(choice) for choice in rule.choices or ()) + 1
    else:
        outside = rule.max + 1 if rule.max is not None else rule.min - 1 if rule.min is not None else another(rule)

    with pytest.raises(Ineligible) as caught:
        plan(cell.model, cell.route, ask(cell, {cell.name: outside}))

    assert caught.value.param == cell.name


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
def test_defaults_are_sent(cell: Cell) -> None:
    """A default of ours reaches the provider when the caller says nothing: theirs differ from each other."""
    if cell.param.default is None or isinstance(cell.rule, EmulatedRule) or cell.id == "flux-kontext-pro/fal/size":
        return  # fal keeps the input's shape by itself when it is told none
    payload = plan(cell.model, cell.route, ask(cell, {})).calls[0]

    assert dig(payload, cell.target or "") is not None


def test_every_kind_is_there() -> None:
    """All four kinds of rule are in use, so that the tests above prove something of each."""
    assert {cell.kind for cell in CELLS} == {"passthrough", "renamed", "converted", "emulated"}


def test_every_parameter_is_documented() -> None:
    """Each parameter says in a sentence what it is."""
    params: list[Param] = [cell.param for cell in CELLS]

    assert all(param.doc.endswith((".", ".)")) for param in params)
