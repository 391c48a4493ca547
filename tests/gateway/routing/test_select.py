"""Which routes are taken, in which order, at which price."""

from typing import Any

import pytest

from gateway.config import SHIPPED, load
from gateway.routing.pricing import estimate
from gateway.routing.select import Choice, choose
from normalization.model import Model, Price
from normalization.values import Header, Image, ImageRequest, Plan, Size
from providers.base import Readiness

CONFIG = load(SHIPPED, {})
CLARITY = CONFIG.models["clarity-upscaler"]
PICTURE = Image(data=b"not looked into", header=Header(format="png", width=600, height=400))
READY, DOWN, OFF = (state for state in (Readiness.READY, Readiness.DOWN, Readiness.OFF))


def pick(model: Model, states: dict[str, Readiness], **params: Any) -> Choice:
    """Choose among a model's routes in these states."""
    request = ImageRequest(model=model.id, images=(PICTURE,), params=params, extra={}, provider_options={}, seed=1)
    return choose(model, request, {name: (state, "says why") for name, state in states.items()})


def names(choice: Choice) -> list[str]:
    """The candidates by name."""
    return [candidate.route.name for candidate in choice.candidates]


@pytest.mark.parametrize(
    ("local", "resample", "allow", "expected"),
    [
        (READY, READY, False, ["local"]),
        (DOWN, READY, False, ["local"]),
        (OFF, READY, False, ["resample"]),
        (OFF, OFF, False, []),
        (READY, READY, True, ["local", "resample"]),
        (DOWN, READY, True, ["local", "resample"]),
        (OFF, DOWN, False, ["resample"]),
    ],
)
def test_degraded_routes(local: Readiness, resample: Readiness, allow: bool, expected: list[str]) -> None:
    """A degraded route serves while no real one is configured, or as the last resort of a caller who admits it."""
    choice = pick(CLARITY, {"local": local, "resample": resample}, **({"allow_degraded": True} if allow else {}))

    assert names(choice) == expected
    assert len(choice.excluded) == 2 - len(expected)


def priced(**prices: dict[str, Any]) -> Model:
    """lanczos-bp with several local routes at these prices."""
    whole = CONFIG.models["lanczos-bp"].model_dump()
    whole["routes"] = {
        name: {**whole["routes"]["local"], "name": name, "price": price} for name, price in prices.items()
    }
    return Model.model_validate(whole)


def test_cheapest_for_this_request_first() -> None:
    """The order follows the price of this request: per image wins for large outputs, per megapixel for small ones."""
    model = priced(flat={"per_image": 0.05}, area={"per_output_megapixel": 0.03})
    states = {"flat": READY, "area": READY}

    assert names(pick(model, states)) == ["area", "flat"]
    assert names(pick(model, states, scale_factor=4)) == ["flat", "area"]
    assert names(pick(model, {"flat": READY, "area": DOWN})) == ["flat", "area"]


@pytest.mark.parametrize(
    ("price", "micros"),
    [
        ({"per_image": 0}, 0),
        ({"per_image": 0.015}, 30_000),
        ({"per_output_megapixel": 0.03}, 57_600),
        ({"per_output_megapixel": 0.03, "whole_megapixels": True}, 60_000),
        ({"per_input_megapixel": 0.01}, 4_800),
        ({"per_second": 0.001, "seconds": 2, "seconds_per_output_megapixel": 5}, 13_600),
        ({"per_output_megapixel": 0.001, "minimum": 0.01}, 20_000),
        ({"per_image": 0.01, "per_input_megapixel": 0.1}, 68_000),
    ],
)
def test_estimate(price: dict[str, Any], micros: int) -> None:
    """Two calls of 600 x 400 to 1200 x 800, in micro-dollars; the components add up to the whole."""
    planned = Plan(calls=({}, {}), output=Size(width=1200, height=800))
    found = estimate(Price.model_validate(price), Size(width=600, height=400), planned)

    assert micros == found.micros
    assert sum(found.components.values()) == found.micros
