"""Fields as the Python SDK encodes them, followed through to the provider, where each has its type again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

from tests.support.fake_cog import FakeCog, data_uri
from tests.support.photo import flat, picture
from tests.support.running import Serve
from tests.support.scripted_cog import as_workers, container, last_input, picture_of

PNG = flat(20, 10)
# What the container takes, and no config of ours knows of.
UNDECLARED = (
    "whole", "part", "negative", "yes", "no", "numbers", "one", "object", "objects", "deep", "json", "text", "more",
    "words", "unicode", "extra", "number", "nothing",
)  # fmt: skip
DEFAULTS = {
    "prompt": "masterpiece, best quality, highres",
    "negative_prompt": "(worst quality, low quality, normal quality:2)",
    "scale_factor": 2,
    "creativity": 0.35,
    "resemblance": 0.6,
    "dynamic": 6,
    "num_inference_steps": 18,
    "output_format": "png",
}


@pytest.fixture(scope="module")
def cog() -> Iterator[FakeCog]:
    with container(*UNDECLARED) as made:
        yield made


@pytest.fixture(scope="module")
def gpu(cog: FakeCog, serve: Serve) -> Iterator[OpenAI]:
    """The SDK at a gateway whose one worker is the container."""
    served = serve(DARKROOM_PROVIDERS__LOCAL__WORKERS=as_workers(cog))
    with OpenAI(base_url=served.base_url, api_key="none") as client:
        yield client


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        ({"whole": 4, "part": 1.5, "negative": -3}, {"whole": 4, "part": 1.5, "negative": -3}),
        ({"yes": True, "no": False}, {"yes": True, "no": False}),
        ({"numbers": [1, 2], "one": ["z"]}, {"numbers": [1, 2], "one": ["z"]}),
        ({"object": {"a": 1, "b": {"c": True}}}, {"object": {"a": 1, "b": {"c": True}}}),
        ({"objects": [{"a": 1}, {"a": 2}]}, {"objects": [{"a": 1}, {"a": 2}]}),
        ({"deep": {"list": [1.5, "x"]}}, {"deep": {"list": [1.5, "x"]}}),
        ({"json": '{"a": [1, "x"]}'}, {"json": {"a": [1, "x"]}}),
        ({"text": "007", "more": "1e5", "words": "true story"}, {"text": "007", "more": "1e5", "words": "true story"}),
        ({"unicode": "Zürich ☕"}, {"unicode": "Zürich ☕"}),
    ],
    ids=str,
)
def test_undeclared(gpu: OpenAI, cog: FakeCog, sent: dict[str, Any], received: dict[str, Any]) -> None:
    """A field that only the container declares reaches it, with the type that the form had taken from it."""
    gpu.images.edit(image=PNG, prompt="", extra_body=sent)

    given = last_input(cog)
    assert {name: given[name] for name in received} == received
    assert [type(given[name]) for name in received] == [type(value) for value in received.values()]


@pytest.mark.parametrize("nothing", [None, [], {}, ""], ids=repr)
def test_nothing(gpu: OpenAI, cog: FakeCog, nothing: object) -> None:
    """What the SDK leaves out, and what stands for nothing, does not reach the container."""
    gpu.images.edit(image=PNG, prompt="", extra_body={"nothing": nothing, "creativity": nothing})

    given = last_input(cog)
    assert given.keys() - {"image", "seed"} == DEFAULTS.keys()


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        ({}, DEFAULTS),
        ({"num_inference_steps": 30, "creativity": 1, "dynamic": 7.5}, None),
        ({"num_inference_steps": "30.0"}, {"num_inference_steps": 30}),
        ({"downscaling": True, "pattern": False, "downscaling_resolution": 512}, None),
        ({"downscaling": "yes", "pattern": "0"}, {"downscaling": True, "pattern": False}),
        ({"handfix": "Hands_Only", "scheduler": "DPM++ 3M SDE Karras"}, {"handfix": "hands_only"}),
        ({"seed": 4_294_967_295}, None),
        ({"scheduler": "007"}, None),
        ({"provider_options": {"local": {"extra": 3, "deep": {"flag": True}}}}, {"extra": 3, "deep": {"flag": True}}),
        ({"provider_options": '{"local": {"extra": "3"}}'}, {"extra": "3"}),
        ({"dynamic": 9, "provider_options": {"local": {"dynamic": "7.5", "pattern": "yes"}}}, {"dynamic": 7.5}),
        ({"provider_options": {"local": {"prompt": "7"}}}, {"prompt": "7"}),
    ],
    ids=str,
)
def test_declared(gpu: OpenAI, cog: FakeCog, sent: dict[str, Any], received: dict[str, Any] | None) -> None:
    """A declared parameter reaches the container as its declaration says, the rest of them at their defaults."""
    gpu.images.edit(image=PNG, prompt="", extra_body=sent)

    received = sent if received is None else received
    given = last_input(cog)
    assert {name: given[name] for name in received} == received
    assert [type(given[name]) for name in received] == [type(value) for value in received.values()]


def test_what_the_container_does_not_announce(gpu: OpenAI, cog: FakeCog) -> None:
    """It is not sent there, whichever way it comes, and the caller is told."""
    response: Any = gpu.images.edit(
        image=PNG, prompt="", extra_body={"grain": 3, "provider_options": {"local": {"mask": "x", "deep": {"a": 1}}}}
    )

    given = last_input(cog)
    assert given.keys() - {"image", "seed", "deep"} == DEFAULTS.keys()
    assert given["deep"] == {"a": 1}
    assert response.metadata["warnings"] == [
        "grain was ignored: the worker has no such input.",
        "mask was ignored: the worker has no such input.",
    ]


def test_openais_own_fields(gpu: OpenAI, cog: FakeCog) -> None:
    """The fields of OpenAI's signature are the gateway's business: of them only prompt and picture are sent on."""
    response = gpu.images.edit(
        image=PNG,
        prompt="a red wall",
        n=1,
        size="40x20",
        background="opaque",
        output_format="webp",
        output_compression=50,
        response_format="b64_json",
        partial_images=0,
        quality="high",
        input_fidelity="high",
        user="someone",
        safety_identifier="someone",
        stream=False,
        extra_body={"moderation": "low", "size_mode": "pad", "allow_degraded": True},
    )

    given = last_input(cog)
    assert given.keys() - {"image", "seed"} == DEFAULTS.keys()
    assert given["prompt"] == "a red wall"
    assert picture_of(given) == PNG
    assert picture(response).format == "WEBP"


def test_size_becomes_a_factor(gpu: OpenAI, cog: FakeCog) -> None:
    """The container is asked for the factor that reaches the size, and the rest is cut here."""
    response = gpu.images.edit(image=PNG, prompt="", size="60x60", response_format="b64_json")

    assert last_input(cog)["scale_factor"] == 6
    assert picture(response).size == (60, 60)


def test_seeds(gpu: OpenAI, cog: FakeCog) -> None:
    """With `n` the container is called n times, and no seed comes twice; a given one is counted up from."""
    for seed in (None, 7):
        cog.bodies.clear()
        gpu.images.edit(image=PNG, prompt="", n=4, extra_body={"seed": seed})
        seeds = sorted(body["input"]["seed"] for body in cog.bodies)
        assert len(set(seeds)) == 4
        assert seed is None or seeds == [7, 8, 9, 10]


def test_the_real_model_is_not_degraded(gpu: OpenAI) -> None:
    """With the real model configured the answer is its own, and does not speak of resampling."""
    raw = gpu.images.with_raw_response.edit(image=PNG, prompt="a red wall")

    told: Any = raw.parse()
    assert "x-darkroom-degraded" not in raw.headers
    assert told.metadata["warnings"] == []


def test_json_body(gpu: OpenAI, cog: FakeCog) -> None:
    """A JSON body keeps its types, and carries the picture as a data URL."""
    encoded = data_uri(PNG)
    body = {
        "model": "clarity-upscaler",
        "images": [{"image_url": encoded}],
        "prompt": None,
        "n": 1,
        "number": "4",
        "deep": {"list": [1, "1", None]},
    }
    gpu.post("/images/edits", body=body, cast_to=object)

    given = last_input(cog)
    assert picture_of(given) == PNG
    assert given["number"] == "4"
    assert given["deep"] == {"list": [1, "1", None]}
