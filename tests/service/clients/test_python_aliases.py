"""The model names that the installed SDK types, called as a program with a fixed list calls them."""

from __future__ import annotations

from typing import Any, get_args

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types import ImageModel

from tests.support.photo import flat, picture
from tests.support.running import Served


@pytest.mark.parametrize("name", get_args(ImageModel))
def test_every_name_of_the_sdk(client: OpenAI, name: Any) -> None:
    """It is served, and says what it was served by; GET /models/{id} knows it too."""
    response: Any = client.images.edit(image=flat(20, 10), prompt="", model=name)
    assert picture(response).size == (40, 20)
    assert response.metadata["model"] == "clarity-upscaler"
    model: Any = client.models.retrieve(name)
    assert (model.id, model.alias_of) == (name, "clarity-upscaler")


@pytest.mark.parametrize("name", ["gpt-image-99-2031-01-01", "fal/gpt-image-2", "local/dall-e-3"])
def test_names_to_come(server: Served, name: str) -> None:
    """So are those that nobody has thought of yet, and those behind a provider's."""
    body = {"model": name, "width": 20, "height": 10}
    answer = httpx.post(f"{server.base_url}/images/edits?dry_run=true", json=body).json()
    assert answer["model"] == "clarity-upscaler"


def test_no_pattern_is_listed(client: OpenAI) -> None:
    """A pattern is no name that could be sent, and a program that offers the list would send it."""
    assert not [model.id for model in client.models.list() if "*" in model.id]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-image-*")


@pytest.mark.parametrize("name", ["gpt-imag-1", "dalle-e-3", "gpt-image"])
def test_what_is_suggested(client: OpenAI, name: str) -> None:
    """Never a pattern, never a name of OpenAI's: what they name comes and goes."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.images.edit(image=flat(20, 10), prompt="", model=name)
    assert "Did you mean 'gpt" not in str(caught.value)
    assert "Did you mean 'dall" not in str(caught.value)
