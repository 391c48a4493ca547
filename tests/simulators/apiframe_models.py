"""The models that the simulated Apiframe has, and what it says of bodies that do not fit them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EVENTS = frozenset({"progress", "completed", "failed"})
_HOOK = ("webhookUrl", "webhookEvents")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model: its params object, what may stand in it (choices, a range, or a type), its scale, its credits."""

    params: str
    choices: Mapping[str, tuple[object, ...]]
    ranges: Mapping[str, tuple[float, float]]
    types: Mapping[str, type]
    scale: str
    credits: int


MODELS: Mapping[str, Model] = {
    "clarity-upscale": Model(
        params="clarityUpscaleParams",
        choices={"scale_factor": (1, 2, 4, 8), "output_format": ("png", "jpg", "webp")},
        ranges={
            "creativity": (0, 1), "resemblance": (0, 3), "dynamic": (1, 50), "num_inference_steps": (1, 100),
            "sharpen": (0, 10),
        },
        types={"prompt": str, "negative_prompt": str, "seed": int},
        scale="scale_factor",
        credits=3,
    ),
    "topaz-image-upscale": Model(
        params="topazUpscaleParams",
        choices={
            "upscale_factor": (1, 2, 4, 6), "output_format": ("jpg", "png"),
            "model_type": ("standard-v2", "low-res-v2", "cgi", "high-fidelity-v2", "text-refine", "redefine"),
        },
        ranges={"face_enhance_strength": (0, 1), "face_enhance_creativity": (0, 1)},
        types={"face_enhance": bool, "seed": int},
        scale="upscale_factor",
        credits=8,
    ),
}  # fmt: skip


def validated(body: Any) -> dict[str, list[str]]:
    """What is wrong with the body of an upscale, by path. The schemas are closed: an unknown field is wrong."""
    if not isinstance(body, dict) or body.get("model") not in MODELS:
        return {"model": ["Invalid input"]}
    model = MODELS[body["model"]]
    given = body.get(model.params)
    if not isinstance(given, dict):
        return {model.params: ["Required"]}
    wrong = {name: ["Unrecognized key"] for name in body if name not in {"model", model.params, *_HOOK}}
    image = given.get("image")
    if not isinstance(image, str) or not image.startswith(("https://", "http://")):
        wrong[f"{model.params}.image"] = ["Invalid url"]
    if not str(body.get("webhookUrl", "https://")).startswith(("https://", "http://127.0.0.1:")):
        wrong["webhookUrl"] = ["Invalid url"]
    events = body.get("webhookEvents", ["completed"])
    if not isinstance(events, list) or not events or set(events) - EVENTS:
        wrong["webhookEvents"] = ["Invalid input"]
    for name, value in given.items():
        if name != "image" and (reason := _fits(model, name, value)):
            wrong[f"{model.params}.{name}"] = [reason]
    return wrong


def _fits(model: Model, name: str, value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in model.choices:
        good = value in model.choices[name] and not isinstance(value, bool)
    elif name in model.ranges:
        low, high = model.ranges[name]
        good = number and low <= value <= high
    elif name in model.types:
        good = isinstance(value, model.types[name]) and (not isinstance(value, str) or len(value) <= 2000)
    else:
        return "Unrecognized key"
    return "" if good else "Invalid input"
