"""The models that the simulated Replicate has, and what it says of inputs that they do not take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from starlette.responses import JSONResponse, Response

CLARITY = "dfad41707589d68ecdccd1dfa600d55a208f9310748e44bfe35b4a6291453d5e"
ESRGAN = "f121d640bd286e1fdc67f9799164c1d5be36ff74576ee11c803ae5b665dd46aa"

Shape: TypeAlias = Literal["string", "list", "dict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model: its picture field, the field that says how much larger, and what its output looks like."""

    version: str | None
    """None: an official model, which has no version to name."""
    image: str = "image"
    factor: str = ""
    default: float = 1.0
    output: Shape = "string"


MODELS = {
    "philz1337x/clarity-upscaler": Model(version=CLARITY, factor="scale_factor", default=2, output="list"),
    "nightmareai/real-esrgan": Model(version=ESRGAN, factor="scale", default=4),
    "topazlabs/image-upscale": Model(version=None, factor="upscale_factor", default=2),
    "black-forest-labs/flux-kontext-pro": Model(version=None, image="input_image"),
}


def problem(status: int, detail: str, title: str | None = None, **more: object) -> JSONResponse:
    """An error as Replicate words it."""
    body = {"detail": detail, "status": status, **({"title": title} if title else {}), **more}
    return JSONResponse(body, status, media_type="application/problem+json")


NOT_FOUND = "The requested resource could not be found."
NO_VERSION = "The specified version does not exist (or perhaps you don't have permission to use it?)"


def version_object(key: str) -> dict[str, Any]:
    schema = {"components": {"schemas": {"Output": {"type": "array", "items": {"type": "string", "format": "uri"}}}}}
    about = {"id": key, "created_at": "2024-06-24T12:00:00.000000Z", "cog_version": "0.8.0-beta11"}
    return {**about, "openapi_schema": schema}


def shaped(shape: Shape, leaf: str) -> Any:
    return {"string": leaf, "list": [leaf], "dict": {"image": leaf}}[shape]


def duration(text: str | None) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    return sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)([smh])", text)) if text else float("inf")


def wrong(model: Model, given: dict[str, Any]) -> Response | None:
    """The refusal of an input that the model's schema does not take."""
    if model.image not in given:
        return _invalid("required", "input", f"{model.image} is required")
    if given.get("output_format", "png") not in {"png", "jpg", "webp"}:
        text = 'output_format must be one of the following: "webp", "jpg", "png"'
        return _invalid("enum", "input.output_format", text)
    return None


def _invalid(kind: str, where: str, text: str) -> Response:
    fields = [{"type": kind, "field": where, "description": text}]
    return problem(422, f"- {where}: {text}\n", "Input validation failed", invalid_fields=fields)
