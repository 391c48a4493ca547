"""Every cell of the table, one test each, from the cells themselves: what is declared is what happens."""

from typing import Any, cast

import pytest

from gateway.config import SHIPPED, load
from normalization.convert import CONVERTERS, STEPPED
from normalization.model import Model
from normalization.plan import Ineligible, plan
from normalization.rules import Converted, Emulated, Param
from normalization.table import Cell, cells
from normalization.values import Header, Image, ImageRequest, Resize, Transcode, Value

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
CELLS = [cell for model in (*CONFIG.models.values(), MADE_UP) for cell in cells(model)]
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
    known: dict[str, Value] = {"size": "96x96", "background": "#102030"}
    found = (v for v in values[param.type] if v != param.default and admits(cell, v))
    return known.get(cell.name) or next(found, cast("Value", param.default))


def admits(cell: Cell, value: Value) -> bool:
    """Whether a rule's bounds, where they are bounds and not steps, let a value pass."""
    return is_stepped(cell) or cell.rule.admits(value)


def is_stepped(cell: Cell) -> bool:
    """Whether the rule's choices are what the provider is sent, not what callers may give."""
    return isinstance(cell.rule, Converted) and cell.rule.using in STEPPED


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

    if isinstance(cell.rule, Emulated):
        assert cell.name not in payload or cell.name in cell.route.fixed
        check_emulation(cell, value)
    elif isinstance(cell.rule, Converted):
        assert dig(payload, cell.target or "") == CONVERTERS[cell.rule.using](value, cell.rule).value
    else:
        assert dig(payload, cell.target or "") == value
        assert cell.kind == "passthrough" or cell.name not in payload


def check_emulation(cell: Cell, value: Value) -> None:
    """The effect of an emulated parameter, seen in the plan."""
    planned = plan(cell.model, cell.route, ask(cell, {cell.name: value}))
    by = cast("Emulated", cell.rule).by
    formats = [step for step in planned.finish if isinstance(step, Transcode)]
    if by == "fan_out":
        assert len(planned.calls) == value
    elif by == "resize":
        with_size = plan(cell.model, cell.route, ask(cell, {"size": "96x96", cell.name: value}))
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
    and not (isinstance(cell.rule, Converted) and cell.rule.using == "aspect_ratio")
]


@pytest.mark.parametrize("cell", BOUNDED, ids=lambda cell: cell.id)
def test_bounds_choose_the_route(cell: Cell) -> None:
    """A value outside a rule's bounds makes the route ineligible and names the parameter; nothing is clamped."""
    rule = cell.rule
    if isinstance(rule, Converted) and is_stepped(cell):
        outside: Value = max(float(choice) for choice in rule.choices or ()) + 1
    else:
        outside = rule.max + 1 if rule.max is not None else rule.min - 1 if rule.min is not None else "wild"

    with pytest.raises(Ineligible) as caught:
        plan(cell.model, cell.route, ask(cell, {cell.name: outside}))

    assert caught.value.param == cell.name


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.id)
def test_defaults_are_sent(cell: Cell) -> None:
    """A default of ours reaches the provider when the caller says nothing: theirs differ from each other."""
    if cell.param.default is None or isinstance(cell.rule, Emulated) or cell.id == "flux-kontext-pro/fal/size":
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
