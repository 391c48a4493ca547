"""Which routes are taken, in which order, at which price."""

import random
from collections import Counter
from typing import Any

import pytest

from gateway.routing.breaker import Standing
from gateway.routing.preferences import RoutingPreferences, read_header, read_wish
from gateway.routing.pricing import RunStats, RunStatsStore, estimate
from gateway.routing.selection import Choice, RouteHealth, choose
from gateway.settings.loader import SHIPPED, load
from normalization.parameters.coerce import InvalidValue
from normalization.parameters.schema import Model, Price
from normalization.values import Header, Image, ImageRequest, Plan, Size, Value
from providers.base import Readiness

CONFIG = load(SHIPPED, {})
WHOLE = CONFIG.models["clarity-upscaler"]
CLARITY = WHOLE.model_copy(update={"routes": {name: WHOLE.routes[name] for name in ("local", "resample")}})
PICTURE = Image(data=b"not looked into", header=Header(format="png", width=600, height=400))
READY, DOWN, OFF = (state for state in (Readiness.READY, Readiness.DOWN, Readiness.OFF))


def pick(model: Model, states: dict[str, Readiness], **params: Any) -> Choice:
    """Choose among a model's routes in these states."""
    request = ImageRequest(model=model.id, images=(PICTURE,), params=params, extra={}, provider_options={}, seed=1)
    conditions = {name: RouteHealth(readiness=state, detail="says why") for name, state in states.items()}
    return choose(model, request, conditions, preferences=params.pop("preferences", RoutingPreferences()))


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
        ({"per_output_megapixel": 0.03, "megapixel_step": 1}, 60_000),
        ({"per_output_megapixel": 0.0033333333, "megapixel_step": 24}, 160_000),
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


THREE = {"a": {"per_image": 0.05}, "b": {"per_image": 0.01}, "c": {"per_image": 0.03}}


def choose_three(preferences: RoutingPreferences | None = None, **conditions: RouteHealth) -> Choice:
    """Choose among three routes that differ in price; all are well unless said otherwise."""
    model = priced(**THREE)
    request = ImageRequest(model=model.id, images=(PICTURE,), params={}, extra={}, provider_options={}, seed=1)
    found = {name: conditions.get(name, RouteHealth(readiness=READY)) for name in THREE}
    return choose(model, request, found, preferences=preferences or RoutingPreferences(), draw=random.Random(4))


@pytest.mark.parametrize(
    ("preferences", "expected"),
    [
        (RoutingPreferences(), ["b", "c", "a"]),
        (RoutingPreferences(sort="order"), ["a", "b", "c"]),
        (RoutingPreferences(order=("c",)), ["c", "b", "a"]),
        (RoutingPreferences(order=("a", "c")), ["a", "c", "b"]),
        (RoutingPreferences(only=("a", "c")), ["c", "a"]),
        (RoutingPreferences(ignore=("b",)), ["c", "a"]),
        (RoutingPreferences(max_cost=0.03), ["b", "c"]),
        (RoutingPreferences(allow_fallbacks=False), ["b"]),
        (RoutingPreferences(only=("local",)), ["b", "c", "a"]),
        (RoutingPreferences(ignore=("local",)), []),
        (RoutingPreferences(max_cost=0), []),
    ],
)
def test_wishes(preferences: RoutingPreferences, expected: list[str]) -> None:
    """What the caller wishes of the routing is done; every route that is left out says why."""
    choice = choose_three(preferences)

    assert names(choice) == expected
    assert {e.route.name for e in choice.excluded} == set(THREE) - set(expected)
    assert all(e.reason for e in choice.excluded)


def test_fastest() -> None:
    """The fastest goes by what was learned, and what nobody knows comes last."""
    slow, fast = RunStats(latency=9), RunStats(latency=2)
    conditions = {"a": RouteHealth(readiness=READY, lesson=fast), "c": RouteHealth(readiness=READY, lesson=slow)}

    assert names(choose_three(RoutingPreferences(sort="fastest"), **conditions)) == ["a", "c", "b"]


def test_balanced() -> None:
    """Balanced draws by 1/price²: over many draws the cheapest leads in about the share that its weight has."""
    model = priced(**THREE)
    request = ImageRequest(model=model.id, images=(PICTURE,), params={}, extra={}, provider_options={}, seed=1)
    conditions = {name: RouteHealth(readiness=READY) for name in THREE}
    draw = random.Random(1)
    leads = Counter(names(choose(model, request, conditions, strategy="balanced", draw=draw))[0] for _ in range(1000))

    assert 800 < leads["b"] < 920  # 1 / (1 + 1/9 + 1/25) = 0.869
    assert leads["c"] > leads["a"] > 0


@pytest.mark.parametrize(
    ("standing", "expected", "throttled"),
    [("ejected", ["c", "a", "b"], None), ("cooling", ["c", "a"], True), ("parked", ["c", "a"], False)],
)
def test_standing(standing: Standing, expected: list[str], throttled: bool | None) -> None:
    """An ejected route comes last, a cooling or parked one is out until a time that is told."""
    choice = choose_three(b=RouteHealth(readiness=READY, standing=standing, left=7))

    assert names(choice) == expected
    assert [(e.retry_after, e.throttled) for e in choice.excluded] == ([] if throttled is None else [(7, throttled)])


def test_learned_pace_changes_the_price() -> None:
    """A price by run time follows what was observed, within reason."""
    model = priced(timed={"per_second": 0.001, "seconds": 10}, flat={"per_image": 0.015})
    learning = RunStatsStore()
    request = ImageRequest(model=model.id, images=(PICTURE,), params={}, extra={}, provider_options={}, seed=1)

    def pick_now() -> Choice:
        lesson = learning.lesson(model.id, "timed")
        conditions = {"timed": RouteHealth(readiness=READY, lesson=lesson), "flat": RouteHealth(readiness=READY)}
        return choose(model, request, conditions)

    assert names(pick_now()) == ["timed", "flat"]
    for _ in range(30):
        learning.learn(model.id, "timed", latency=21, observed=20, expected=10)
    assert names(pick_now()) == ["flat", "timed"]
    assert pick_now().candidates[1].cost.micros == pytest.approx(20_000, rel=0.06)
    for _ in range(100):
        learning.learn(model.id, "timed", latency=21, observed=9000, expected=10)
    assert learning.lesson(model.id, "timed").pace == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize(
    ("value", "preferences"),
    [
        ('{"only": ["local"], "max_cost": 0.5}', RoutingPreferences(only=("local",), max_cost=0.5)),
        ({"order": ["a", "b"], "sort": "fastest"}, RoutingPreferences(order=("a", "b"), sort="fastest")),
        ({"ignore": "a, b", "allow_fallbacks": "false"}, RoutingPreferences(ignore=("a", "b"), allow_fallbacks=False)),
        ("", RoutingPreferences()),
        (None, RoutingPreferences()),
    ],
)
def test_reading_wishes(value: Value, preferences: RoutingPreferences) -> None:
    """The routing object comes as JSON text, as an object or out of bracketed fields."""
    assert read_wish(value, {"local", "a", "b"}) == preferences


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("fast", "expected an object"),
        ({"sort": "cheap"}, "one of cheapest, fastest, balanced, order"),
        ({"only": ["repliacte"]}, "unknown provider 'repliacte' in 'only'; known are a, b, local"),
        ({"only": []}, "must be a list"),
        ({"max_cost": "much"}, "an amount in US dollars"),
        ({"max_cost": -1}, "an amount in US dollars"),
        ({"allow_fallbacks": 3}, "true or false"),
        ({"olny": ["a"]}, "unknown key 'olny'"),
    ],
)
def test_wishes_that_are_none(value: Value, part: str) -> None:
    """A mistake in the routing object is told, never passed over."""
    with pytest.raises(InvalidValue, match=part) as caught:
        read_wish(value, {"local", "a", "b"})

    assert caught.value.param == "routing"


def test_the_header() -> None:
    """The header is JSON, and says so when it is not."""
    assert read_header('{"only": ["a"]}', {"a"}) == RoutingPreferences(only=("a",))
    assert read_header(None, {"a"}) == RoutingPreferences()
    with pytest.raises(InvalidValue, match="is not JSON"):
        read_header("{only: a}", {"a"})
