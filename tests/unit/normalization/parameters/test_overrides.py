"""A value for one provider overrides the shared one there."""

from typing import Any

import pytest

from gateway.settings.loader import SHIPPED, load
from normalization.parameters.coerce import InvalidValue
from normalization.parameters.plan import Ineligible, check, plan
from normalization.values import Header, Image, ImageRequest, Plan, Size

CONFIG = load(SHIPPED, {})
CLARITY = CONFIG.models["clarity-upscaler"]
PICTURE = Image(data=b"not looked into", header=Header(format="png", width=600, height=400))


def planned(route: str, options: dict[str, Any], **params: Any) -> Plan:
    """The plan of a route of Clarity, after the checks."""
    request = ImageRequest(
        model=CLARITY.id, images=(PICTURE,), params=params, extra={}, provider_options=options, seed=7
    )
    check(CLARITY, request, CONFIG.denied)
    return plan(CLARITY, CLARITY.routes[route], request)


def test_it_counts_there_and_nowhere_else() -> None:
    """By the parameter's own name, whatever the provider calls it, and whether there is a shared value or not."""
    options = {"replicate": {"dynamic": 7}, "fal": {"dynamic": 5}}
    for shared in ({}, {"dynamic": 9}):
        assert planned("replicate", options, **shared).calls[0]["dynamic"] == 7
        assert planned("fal", options, **shared).calls[0]["guidance_scale"] == 5
        assert planned("segmind", options, **shared).calls[0]["dynamic"] == shared.get("dynamic", 6)
    assert "dynamic" not in planned("fal", options).calls[0]


def test_everything_that_follows_from_it() -> None:
    """The size, the price and the seeds are those of the value that is sent."""
    larger = planned("replicate", {"replicate": {"scale_factor": 4, "num_inference_steps": 36, "seed": 40}}, n=2)
    assert larger.output == Size(width=2400, height=1600)
    assert larger.work == 2
    assert [call["seed"] for call in larger.calls] == [40, 41]
    other = planned("segmind", {"replicate": {"scale_factor": 4}})
    assert (other.output, other.work) == (Size(width=1200, height=800), 1)


def test_the_routes_bounds_hold() -> None:
    """A value that this route does not take makes it ineligible, as a shared one does."""
    with pytest.raises(Ineligible, match="accepts dynamic"):
        planned("fal", {"fal": {"dynamic": 30}})


def test_undeclared_fields_go_beside_it() -> None:
    """What is no parameter passes as it is."""
    sent = planned("replicate", {"replicate": {"dynamic": 7, "deep": {"a": 1}}}).calls[0]
    assert (sent["dynamic"], sent["deep"]) == (7, {"a": 1})


@pytest.mark.parametrize("name", ["n", "size", "stream", "response_format", "output_format", "image", "webhook_url"])
def test_what_is_for_all_alike(name: str) -> None:
    """It is no provider's own."""
    with pytest.raises(InvalidValue, match="applies to all providers") as caught:
        planned("replicate", {"replicate": {name: "x"}})
    assert (caught.value.param, caught.value.code) == (name, "parameter_conflict")
