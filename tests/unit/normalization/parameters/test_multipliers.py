"""Undeclared fields that would make a call dearer than its estimate are refused, however they are written."""

from typing import Any

import pytest

from gateway.settings.loader import SHIPPED, load
from normalization.parameters.coerce import InvalidValue
from normalization.parameters.undeclared import check_multipliers
from normalization.values import ImageRequest, Value

CONFIG = load(SHIPPED, {})


def checked(model: str, **given: Any) -> None:
    """Check a request of undeclared fields."""
    inner: dict[str, Any] = {"images": (), "params": {}, "extra": {}, "provider_options": {}, "seed": 7, **given}
    check_multipliers(CONFIG.models[model], ImageRequest(model=model, **inner), CONFIG.multipliers)


@pytest.mark.parametrize("name", [*CONFIG.multipliers, "numOutputs", "NUM-IMAGES", "batchSize"])
@pytest.mark.parametrize(
    "made",
    [
        lambda name: {"extra": {name: 4}},
        lambda name: {"extra": {"input": {"list": [{name: 4}]}}},
        lambda name: {"provider_options": {"fal": {name: 4}}},
        lambda name: {"provider_options": {"replicate": {"deep": {name: 4}}}},
    ],
)
def test_a_multiplier(name: str, made: Any) -> None:
    """Named with what to send instead, where there is such a thing."""
    with pytest.raises(InvalidValue) as caught:
        checked("recraft-crisp-upscale", **made(name))
    assert (caught.value.code, caught.value.param) == ("parameter_refused", name)
    assert "cost more than its estimate" in caught.value.message
    instead = CONFIG.multipliers.get(name)
    if instead in ("n", "size"):
        assert f"Use '{instead}' instead" in caught.value.message


@pytest.mark.parametrize(
    "given",
    [
        {"extra": {"style": "oil", "guidance": 4, "multistep_factor": 0.8, "deep": {"steps_taken": 1}}},
        {"provider_options": {"replicate": {"num_inference_steps": 30}}},
        {"provider_options": {"fal": {"upscale_factor": 3}}},
    ],
)
def test_what_is_declared_or_no_multiplier(given: dict[str, Value]) -> None:
    """A parameter of the model, by its own name or the provider's, has its price; other words have none."""
    checked("clarity-upscaler", **given)
