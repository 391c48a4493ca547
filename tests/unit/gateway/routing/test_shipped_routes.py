"""The shipped table at work: for each request the route that is taken, its price, and its payload to the letter."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.routing.preferences import RoutingPreferences
from gateway.routing.selection import RouteHealth, choose
from gateway.settings.loader import SHIPPED, load
from normalization.values import Header, Image, ImageRequest, Value
from providers.base import Readiness
from tests.simulators.clouds import ALL

CONFIG = load(SHIPPED, {})

LORA = "masterpiece, best quality, highres, <lora:more_details:0.5> <lora:SDXLrender_v2.0:1>"
PLAIN = "masterpiece, best quality, highres"
NEGATIVE = "(worst quality, low quality, normal quality:2)"
SEED = 41

CLARITY: dict[str, dict[str, Value]] = {
    "replicate": {
        "prompt": LORA,
        "negative_prompt": f"{NEGATIVE} JuggernautNegative-neg",
        "scale_factor": 2,
        "creativity": 0.35,
        "resemblance": 0.6,
        "dynamic": 6,
        "num_inference_steps": 18,
        "seed": SEED,
        "output_format": "png",
    },
    "fal": {
        "prompt": PLAIN,
        "negative_prompt": NEGATIVE,
        "upscale_factor": 2,
        "creativity": 0.35,
        "resemblance": 0.6,
        "guidance_scale": 4,
        "num_inference_steps": 18,
        "seed": SEED,
        "enable_safety_checker": True,
    },
}
CLARITY["segmind"] = CLARITY["replicate"]
CLARITY["apiframe"] = {**CLARITY["replicate"], "prompt": PLAIN, "negative_prompt": NEGATIVE}
TOPAZ: dict[str, dict[str, Value]] = {
    "replicate": {
        "upscale_factor": "2x",
        "enhance_model": "Standard V2",
        "face_enhancement": False,
        "face_enhancement_strength": 0.8,
        "face_enhancement_creativity": 0,
        "output_format": "png",
    },
    "fal": {
        "upscale_factor": 2,
        "model": "Standard V2",
        "face_enhancement": False,
        "face_enhancement_strength": 0.8,
        "face_enhancement_creativity": 0,
        "output_format": "png",
    },
    "apiframe": {
        "upscale_factor": 2,
        "model_type": "standard-v2",
        "face_enhance": False,
        "face_enhance_strength": 0.8,
        "face_enhance_creativity": 0,
        "output_format": "png",
    },
}
KONTEXT: dict[str, dict[str, Value]] = {
    "replicate": {
        "prompt": "make it blue",
        "aspect_ratio": "match_input_image",
        "safety_tolerance": 2,
        "seed": SEED,
        "output_format": "png",
    },
    "fal": {
        "prompt": "make it blue",
        "safety_tolerance": "2",
        "seed": SEED,
        "guidance_scale": 3.5,
        "output_format": "png",
        "num_images": 1,
    },
}
ESRGAN: dict[str, dict[str, Value]] = {
    "replicate": {"scale": 4, "face_enhance": False},
    "fal": {"scale": 4, "face": False, "output_format": "png"},
    "segmind": {"scale": 4, "output_format": "png"},
}
AURA: dict[str, dict[str, Value]] = {
    "fal": {"upscale_factor": 4, "checkpoint": "v2", "overlapping_tiles": True},
}
BASES = {
    "clarity-upscaler": CLARITY,
    "topaz-image-upscale": TOPAZ,
    "flux-kontext-pro": KONTEXT,
    "real-esrgan": ESRGAN,
    "aura-sr": AURA,
}
PICTURE_FIELD = {
    ("flux-kontext-pro", "replicate"): "input_image",
    **{(model, "fal"): "image_url" for model in BASES},
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A request, who could serve it, and what is expected: the route, micro-dollars, and how the payload differs."""

    size: tuple[int, int] = (600, 400)
    params: dict[str, Any] = field(default_factory=dict)
    model: str = "clarity-upscaler"
    on: tuple[str, ...] = ALL
    preferences: RoutingPreferences = field(default_factory=RoutingPreferences)
    route: str
    micros: int
    payload: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()


NO_REPLICATE = ("fal", "segmind", "apiframe")
PAIR = ("fal", "apiframe")
CASES = {
    # The cheapest follows the size of the output: by megapixels for tiny ones, by seconds in between, flat for large.
    "tiny": Case(size=(64, 64), route="fal", micros=492),
    "small": Case(route="replicate", micros=5172),
    "one megapixel": Case(size=(1024, 1024), route="replicate", micros=12740),
    "large": Case(size=(2000, 1500), route="apiframe", micros=30000),
    "small, four times": Case(
        params={"scale_factor": 4}, route="replicate", micros=11911, payload={"scale_factor": 4}
    ),
    "tiny, four times": Case(
        size=(64, 64), params={"scale_factor": 4}, route="fal", micros=1967, payload={"upscale_factor": 4}
    ),
    "tiny, eight times": Case(
        size=(64, 64), params={"scale_factor": 8}, route="replicate", micros=3539, payload={"scale_factor": 8}
    ),
    # Without the cheapest, the next one.
    "no replicate": Case(on=NO_REPLICATE, route="segmind", micros=6844),
    "fal and apiframe": Case(on=PAIR, route="fal", micros=28800),
    "fal and apiframe, larger": Case(size=(800, 600), on=PAIR, route="apiframe", micros=30000),
    "apiframe alone": Case(on=("apiframe",), route="apiframe", micros=30000),
    # n pictures are n calls.
    "two pictures": Case(params={"n": 2}, route="replicate", micros=10344),
    "ten pictures on fal": Case(params={"n": 10}, on=("fal",), route="fal", micros=288000),
    # Bounds choose routes; nothing is clamped.
    "resemblance above fal's": Case(
        size=(64, 64), params={"resemblance": 1.5}, route="replicate", micros=2964, payload={"resemblance": 1.5}
    ),
    "resemblance at fal's": Case(
        size=(64, 64), params={"resemblance": 1}, route="fal", micros=492, payload={"resemblance": 1}
    ),
    "few steps": Case(
        size=(64, 64), params={"num_inference_steps": 3}, route="replicate", micros=2932,
        payload={"num_inference_steps": 3},
    ),
    "strong guidance": Case(
        size=(64, 64), params={"dynamic": 21}, route="replicate", micros=2964, payload={"dynamic": 21}
    ),
    "guidance on fal": Case(
        size=(64, 64), params={"dynamic": 7.5}, route="fal", micros=492, payload={"guidance_scale": 7.5}
    ),
    "a long prompt": Case(
        on=PAIR, size=(2000, 1500), params={"prompt": "x" * 2001}, route="fal", micros=360000,
        payload={"prompt": "x" * 2001},
    ),
    # In between Apiframe's factors the next larger one runs.
    "three times on apiframe": Case(
        on=("apiframe",), params={"scale_factor": 3}, route="apiframe", micros=30000, payload={"scale_factor": 4}
    ),
    "a size on apiframe": Case(
        on=("apiframe",), params={"size": "1024x1024"}, route="apiframe", micros=30000, payload={"scale_factor": 4}
    ),
    # A size becomes the factor.
    "a size": Case(params={"size": "1024x1024"}, route="replicate", micros=6606, payload={"scale_factor": 2.56}),
    "a size below": Case(params={"size": "300x200"}, route="replicate", micros=3487, payload={"scale_factor": 1.0}),
    # What the caller asks of the routing.
    "only fal": Case(preferences=RoutingPreferences(only=("fal",)), route="fal", micros=28800),
    "fal first": Case(preferences=RoutingPreferences(order=("fal",)), route="fal", micros=28800),
    "not replicate": Case(preferences=RoutingPreferences(ignore=("replicate",)), route="segmind", micros=6844),
    "as listed": Case(preferences=RoutingPreferences(sort="order"), route="replicate", micros=5172),
    # Parameters of one route alone.
    "a route's own parameter": Case(
        params={"sharpen": 2, "tiling_width": 64}, route="replicate", micros=5172,
        payload={"sharpen": 2, "tiling_width": 64},
    ),
    "the checker off": Case(
        size=(64, 64), params={"enable_safety_checker": False}, route="fal", micros=492,
        payload={"enable_safety_checker": False},
    ),
    # The caller's own words replace ours.
    "a prompt": Case(params={"prompt": "a cup"}, route="replicate", micros=5172, payload={"prompt": "a cup"}),
    # The other models.
    "topaz": Case(model="topaz-image-upscale", route="replicate", micros=80000),
    "topaz, 54 megapixels": Case(
        model="topaz-image-upscale", size=(3000, 2000), params={"scale_factor": 3}, on=("fal",), route="fal",
        micros=240000, payload={"upscale_factor": 3},
    ),
    "topaz, three times on replicate": Case(
        model="topaz-image-upscale", params={"scale_factor": 3}, on=("replicate",), route="replicate", micros=80000,
        payload={"upscale_factor": "4x"},
    ),
    "topaz, six times": Case(
        model="topaz-image-upscale", params={"scale_factor": 6}, on=PAIR, route="apiframe", micros=80000,
        payload={"upscale_factor": 6, "seed": SEED},
    ),
    "topaz, another model": Case(
        model="topaz-image-upscale", params={"enhance_model": "CGI"}, on=("apiframe",), route="apiframe", micros=80000,
        payload={"model_type": "cgi", "seed": SEED},
    ),
    "kontext": Case(model="flux-kontext-pro", params={"prompt": "make it blue"}, route="replicate", micros=40000),
    "kontext, a size": Case(
        model="flux-kontext-pro", params={"prompt": "make it blue", "size": "1920x1080"}, route="replicate",
        micros=40000, payload={"aspect_ratio": "16:9"},
    ),
    "kontext on fal": Case(
        model="flux-kontext-pro", params={"prompt": "make it blue", "size": "1000x900"}, on=("fal",), route="fal",
        micros=40000, payload={"aspect_ratio": "1:1"},
    ),
    "kontext, tolerant": Case(
        model="flux-kontext-pro", params={"prompt": "make it blue", "safety_tolerance": 5}, route="fal", micros=40000,
        payload={"safety_tolerance": "5"},
    ),
    "esrgan": Case(model="real-esrgan", route="replicate", micros=684),
    "esrgan, ten times": Case(
        model="real-esrgan", params={"scale_factor": 10}, route="replicate", micros=2498, payload={"scale": 10}
    ),
    "esrgan, three times on segmind": Case(
        model="real-esrgan", params={"scale_factor": 3}, on=("segmind",), route="segmind", micros=4700,
        payload={"scale": 4},
    ),
    "aura, twice": Case(model="aura-sr", params={"scale_factor": 2}, route="fal", micros=2389),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_route(name: str) -> None:
    """The cheapest route that can honour the request is first, at its price, with its payload to the letter."""
    case = CASES[name]
    model = CONFIG.models[case.model]
    picture = Image(data=b"not looked into", header=Header(format="png", width=case.size[0], height=case.size[1]))
    request = ImageRequest(
        model=model.id, images=(picture,), params=case.params, extra={}, provider_options={}, seed=SEED
    )
    conditions = {
        route.name: RouteHealth(readiness=Readiness.READY if route.name in case.on else Readiness.OFF)
        for route in model.routes.values()
    }

    best = choose(model, request, conditions, preferences=case.preferences).candidates[0]

    expected = {**BASES[case.model][case.route], **case.payload}
    expected[PICTURE_FIELD.get((case.model, case.route), "image")] = picture
    assert best.route.name == case.route
    assert dict(best.plan.calls[0]) == expected
    assert best.cost.micros == case.micros


def test_enough_cases() -> None:
    """The table is large enough to mean something, and every cloud is chosen somewhere in it."""
    assert len(CASES) >= 30
    assert {case.route for case in CASES.values()} == set(ALL)
