"""Why no route can serve: in the order of what can be done about it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.api.problems import no_route
from gateway.routing.preferences import RoutingPreferences
from gateway.routing.selection import Choice, Excluded, RouteHealth, choose, told
from gateway.settings.loader import Config
from normalization.parameters.schema import Model
from normalization.values import Header, Image, ImageRequest, Value
from providers.base import Readiness

PICTURE = Image(data=b"not looked into", header=Header(format="png", width=600, height=400))
NO_KEY = {"replicate": "REPLICATE_API_TOKEN is not set", "fal": "FAL_KEY is not set"}


def chosen(model: Model, preferences: RoutingPreferences, off: dict[str, str], **params: Value) -> Choice:
    """The choice for a request while these providers are off, for these reasons, and all others ready."""
    request = ImageRequest(model=model.id, images=(PICTURE,), params=params, extra={}, provider_options={}, seed=1)
    conditions = {
        route.name: RouteHealth(readiness=Readiness.OFF, detail=off[route.provider])
        if route.provider in off
        else RouteHealth(readiness=Readiness.READY)
        for route in model.routes.values()
    }
    return choose(model, request, conditions, preferences=preferences)


def message(model: Model, choice: Choice) -> str:
    """What the caller is told."""
    assert not choice.candidates
    error = no_route(model, choice)
    assert (error.status, error.code) == (400, "no_route")
    return error.message


def test_a_provider_by_name_without_its_key(shipped: Config) -> None:
    """That the key is missing comes first; what the name left out is one sentence."""
    model = shipped.models["clarity-upscaler"]
    assert message(model, chosen(model, RoutingPreferences(only=("replicate",)), NO_KEY)) == (
        "No route of clarity-upscaler can serve this request: replicate is off: REPLICATE_API_TOKEN is not set. fal, "
        "segmind, apiframe, tile-diffusion, local and resample are not replicate, as the request asks."
    )


def test_only_what_the_caller_left_out(shipped: Config) -> None:
    """Where nothing else stands in the way that is all there is to tell."""
    model = shipped.models["aura-sr"]
    assert message(model, chosen(model, RoutingPreferences(only=("segmind",)), {})) == (
        "No route of aura-sr can serve this request: fal is not segmind, as the request asks."
    )


def test_what_the_request_can_change_comes_before_what_is_off(shipped: Config) -> None:
    """And its parameter is the error's."""
    model = shipped.models["real-esrgan"]
    choice = chosen(
        model, RoutingPreferences(ignore=("local", "segmind")), NO_KEY | {"fal": "FAL_KEY is not set"}, scale_factor=9
    )
    assert message(model, choice).startswith("No route of real-esrgan can serve this request: replicate is off")
    choice = chosen(model, RoutingPreferences(ignore=("local", "segmind")), {"replicate": "no key"}, scale_factor=9)
    assert message(model, choice) == (
        "No route of real-esrgan can serve this request: fal accepts scale_factor at most 8, not 9; replicate is off: "
        "no key. esrgan and segmind are to be ignored, as the request asks."
    )
    assert no_route(model, choice).param == "scale_factor"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([{}, {"param": "n"}, {"retry_after": 3}], "c is out; b is out; a is out"),
        ([{"own": True, "param": "routing"}, {}, {"own": True}], "b is out. a and c are out"),
        ([{"own": True}, {"own": True}, {"own": True}], "a, b and c are out"),
        ([], ""),
    ],
)
def test_the_order(shipped: Config, given: list[dict[str, Any]], text: str) -> None:
    """What passes by itself, what the request can change, what the operator can; what the caller excluded is last."""
    route = shipped.models["lanczos-bp"].routes["local"]
    excluded = [
        Excluded(route=route.model_copy(update={"name": name}), reason="is out", **more)
        for name, more in zip("abc", given, strict=False)
    ]
    assert told(excluded) == text
