"""Prices that depend on parameters, and what a call may come to at most."""

from typing import Any

import pytest

from gateway.routing.pricing import estimate
from gateway.routing.selection import RouteHealth, choose
from gateway.settings.loader import SHIPPED, load
from normalization.parameters.plan import plan
from normalization.parameters.rules import RuleProblem
from normalization.parameters.schema import Model, Price
from normalization.values import Header, Image, ImageRequest, Plan, Size
from providers.base import Readiness

CONFIG = load(SHIPPED, {})
CLARITY = CONFIG.models["clarity-upscaler"]
AURA = CONFIG.models["aura-sr"]
PICTURE = Image(data=b"not looked into", header=Header(format="png", width=600, height=400))
# Between what Replicate's seconds cost with 18 steps and with 50.
FLAT = Price.model_validate({"per_image": 0.007})
SOURCE = Size(width=600, height=400)


def ask(model: Model, **params: Any) -> ImageRequest:
    """A request with these parameters."""
    return ImageRequest(model=model.id, images=(PICTURE,), params=params, extra={}, provider_options={}, seed=1)


def cost(route: str, **params: Any) -> int:
    """What Clarity costs on a route, in micro-dollars."""
    found = CLARITY.routes[route]
    return estimate(found.price, SOURCE, plan(CLARITY, found, ask(CLARITY, **params))).micros


def test_more_steps_cost_more_where_seconds_are_billed() -> None:
    """3 s, and 2.4 s a megapixel at 18 steps: of 0.96 megapixels."""
    assert cost("replicate") == cost("replicate", num_inference_steps=18)
    assert cost("replicate", num_inference_steps=36) == pytest.approx((3 + 2 * 2.4 * 0.96) * 975, abs=1)
    assert cost("replicate", num_inference_steps=1) < cost("replicate") < cost("replicate", num_inference_steps=100)
    assert cost("fal", num_inference_steps=36) == cost("fal")


def test_the_router_goes_by_it() -> None:
    """With many steps the route that bills by the picture is the cheaper one."""
    conditions = {
        name: RouteHealth(readiness=Readiness.READY if name in ("replicate", "fal") else Readiness.OFF)
        for name in CLARITY.routes
    }
    free = CLARITY.model_copy(
        update={"routes": {**CLARITY.routes, "fal": CLARITY.routes["fal"].model_copy(update={"price": FLAT})}}
    )
    few, many = (
        [found.route.name for found in choose(free, ask(free, num_inference_steps=n), conditions).candidates]
        for n in (18, 50)
    )
    assert (few, many) == (["replicate", "fal"], ["fal", "replicate"])


def test_a_choice_may_have_a_factor() -> None:
    """AuraSR without its second pass takes half of the time that grows with the picture."""
    route = AURA.routes["fal"]
    once, twice = (plan(AURA, route, ask(AURA, overlapping_tiles=both)).work for both in (False, True))
    assert (once, twice) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("price", "micros", "most"),
    [
        ({"per_image": 0.01, "work": {"steps": 10}}, 40_000, 40_000),
        ({"per_output_megapixel": 0.03, "work": {"steps": 10}}, 115_200, 115_200),
        ({"per_second": 0.001, "seconds": 2, "work": {"steps": 10}}, 4_000, 16_000),
        ({"per_second": 0.001, "seconds": 2, "seconds_per_output_megapixel": 5}, 23_200, 92_800),
        ({"per_second": 0.001, "seconds": 1, "minimum": 0.002}, 4_000, 8_000),
        ({"per_image": 0}, 0, 0),
    ],
)
def test_at_most(price: dict[str, Any], micros: int, most: int) -> None:
    """What is billed by the second may take four times as long as expected: beyond that the figures are wrong."""
    planned = Plan(calls=({}, {}), output=Size(width=1200, height=800), work=2.0)
    found = estimate(Price.model_validate(price), SOURCE, planned)
    assert (found.micros, found.most) == (micros, most)
    slow = estimate(Price.model_validate(price), SOURCE, planned, pace=4)
    assert slow.most == most == slow.micros if "per_second" in price else True


@pytest.mark.parametrize(
    ("work", "words"),
    [
        ({"grain": 3}, "names grain, which is no parameter that this route is sent"),
        ({"prompt": 3}, "prompt is a number, and prompt is none"),
        ({"n": 1}, "names n, which is no parameter that this route is sent"),
        ({"handfix": {"feet_only": 2}}, "has a factor for feet_only, which is no value of it"),
        ({"pattern": {"yes": 2}}, "has a factor for yes"),
        ({"num_inference_steps": 0}, "greater than 0"),
    ],
)
def test_what_a_price_cannot_depend_on(work: dict[str, Any], words: str) -> None:
    """The config says so at the start."""
    whole = CLARITY.model_dump()
    whole["routes"]["replicate"]["price"]["work"] = work
    with pytest.raises((RuleProblem, ValueError), match=words):
        Model.model_validate(whole)
