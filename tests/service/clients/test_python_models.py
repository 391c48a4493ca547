"""The list of models, and one model, as the SDK reads them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.service.clients.test_python_errors import check
from tests.support.running import Served


def test_list(client: OpenAI) -> None:
    """Every model and alias is there, with OpenAI's four keys."""
    models = {model.id: model for model in client.models.list()}

    assert {"clarity-upscaler", "lanczos-bp", "dall-e-2", "gpt-image-1"} <= models.keys()
    for model in models.values():
        assert model.object == "model"
        assert model.created > 1_400_000_000
        assert model.owned_by


async def test_list_async(server: Served) -> None:
    """The client that is awaited reads the same list."""
    async with AsyncOpenAI(base_url=server.base_url, api_key="none") as client:
        assert "lanczos-bp" in [model.id async for model in client.models.list()]


def test_retrieve(client: OpenAI) -> None:
    """One model tells its modes, parameters with ranges, and routes with price, state and rules."""
    model: Any = client.models.retrieve("lanczos-bp")

    assert model.id == "lanczos-bp"
    assert model.modes == ["upscale"]
    factor = model.parameters["scale_factor"]
    assert (factor["type"], factor["min"], factor["max"], factor["default"]) == ("number", 1, 16, 2)
    assert factor["doc"]
    route = model.routes["local"]
    assert (route["provider"], route["state"]) == ("local", "ready")
    assert route["price"] == {"per_image": 0, "currency": "USD"}
    assert route["rules"]["scale_factor"] == {"rule": "renamed", "to": "scale"}
    assert route["rules"]["n"] == {"rule": "emulated", "by": "fan_out"}
    assert model.available is True


def test_retrieve_an_alias(client: OpenAI) -> None:
    """An alias is a model of its own name, which says what it stands for."""
    model: Any = client.models.retrieve("gpt-image-1")

    assert model.id == "gpt-image-1"
    assert model.alias_of == "clarity-upscaler"


@pytest.mark.parametrize("name", ["google/up scale@4x:v1", "clarity-upscalr", "../models", "%2F", "ünknown"])
def test_unknown(client: OpenAI, name: str) -> None:
    """A model that is not there is a 404, whatever has to be escaped in its name."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve(name)

    check(caught.value, 404, "model_not_found", "model")
    if name == "clarity-upscalr":
        assert "Did you mean 'clarity-upscaler'?" in str(caught.value)
    else:
        assert f"'{name}'" in str(caught.value)


@pytest.mark.parametrize("prefix", ["/openai/v1", "/v1"])
def test_raw_paths(server: Served, prefix: str) -> None:
    """A slash may come escaped or as it is, and both prefixes are served."""
    for name in (quote("a/b", safe=""), "a/b"):
        error = httpx.get(f"{server.root}{prefix}/models/{name}").json()["error"]
        assert (error["code"], "'a/b'" in error["message"]) == ("model_not_found", True)
    assert httpx.get(f"{server.root}{prefix}/models/lanczos-bp").json()["id"] == "lanczos-bp"


def test_schema(server: Served) -> None:
    """`?schema=true` is the JSON Schema of the model's fields."""
    schema = httpx.get(f"{server.base_url}/models/lanczos-bp", params={"schema": "true"}).json()

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["properties"]["scale_factor"]["maximum"] == 16
    assert schema["required"] == ["image"]
