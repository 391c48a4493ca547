"""The models of a simulated fal: what they take, what they say of what they do not take, what they cost."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.simulators.common import enlarge, size, square

Shape = Literal["image", "images", "string", "url"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One endpoint. `scale` is the parameter for the factor a side, `price` in US dollars for a unit.

    A unit is a megapixel of output where `per_megapixel`, else a picture. `ranges` are least and most.
    """

    price: float
    scale: str = ""
    default_scale: float = 1.0
    per_megapixel: bool = False
    required: tuple[str, ...] = ("image_url",)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    formats: tuple[str, ...] = ("png",)
    shape: Shape = "image"
    sync_mode: bool = False


MODELS: Mapping[str, Model] = {
    "fal-ai/clarity-upscaler": Model(
        price=0.03,
        scale="upscale_factor",
        default_scale=2,
        per_megapixel=True,
        ranges={
            "upscale_factor": (1, 4),
            "creativity": (0, 1),
            "resemblance": (0, 1),
            "guidance_scale": (0, 20),
            "num_inference_steps": (4, 50),
        },
    ),
    "fal-ai/topaz/upscale/image": Model(
        price=0.08, scale="upscale_factor", default_scale=2, formats=("jpeg", "png"), ranges={"creativity": (1, 6)}
    ),
    "fal-ai/esrgan": Model(price=0.0011, scale="scale", default_scale=2, formats=("png", "jpeg")),
    "fal-ai/aura-sr": Model(price=0.0011, scale="upscale_factor", default_scale=4),
    "clarityai/crystal-upscaler": Model(
        price=0.016, scale="scale_factor", default_scale=2, formats=("jpg", "png"), per_megapixel=True
    ),
    "fal-ai/flux-pro/kontext": Model(
        price=0.04, required=("prompt", "image_url"), formats=("jpeg", "png"), shape="images", sync_mode=True
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a run comes to: a picture, or an error's status and body; and the units that are billed."""

    image: bytes = field(default=b"", repr=False)
    kind: str = "png"
    status: int = 200
    body: Mapping[str, Any] = field(default_factory=dict)
    units: float = 0.0


def run(model: Model, given: Any, fetch: Callable[[str], bytes | None]) -> Made:
    """Run a model, the way fal's app framework does: what is wrong with the input is found only here.

    `fetch` gives what lies at an address, None where nothing can be had there. Errors repeat the input, as fal's do.
    """
    if items := list(_wrong(model, given)):
        return Made(status=422, body={"detail": items})
    address = given["image_url"]
    data = _decoded(address) if address.startswith("data:") else fetch(address)
    if data is None and not address.startswith("data:"):
        item = {"loc": ["body", "image_url"], "msg": "File download error", "type": "file_download_error"}
        return Made(
            status=422,
            body={"detail": [{**item, "url": "https://docs.fal.ai/errors/#file_download_error", "input": address}]},
        )
    try:
        kind = str(given.get("output_format", model.formats[0]))
        picture = enlarge(data or b"", float(given.get(model.scale, model.default_scale)), kind)
        picture = square(picture) if given.get("crop_to_fill") else picture
    except OSError:
        return Made(status=422, body={"detail": f"Could not load image from url: {address}"})
    width, height = size(picture)
    units = width * height / 1e6 if model.per_megapixel else 1.0
    return Made(image=picture, kind=kind, units=round(units, 8))


def _wrong(model: Model, given: Any) -> Any:
    if not isinstance(given, dict):
        yield {"loc": ["body"], "msg": "Input should be a valid dictionary", "type": "dict_type", "input": given}
        return
    for name in model.required:
        if not isinstance(given.get(name), str):
            yield {"loc": ["body", name], "msg": "Field required", "type": "missing", "input": given}
    for name, (least, most) in model.ranges.items():
        value = given.get(name, least)
        if value > most:
            message = f"Input should be less than or equal to {most}"
            yield _item(name, message, "less_than_equal", {"le": most}, value)
        elif value < least:
            message = f"Input should be greater than or equal to {least}"
            yield _item(name, message, "greater_than_equal", {"ge": least}, value)
    if given.get("output_format", model.formats[0]) not in model.formats:
        choices = " or ".join(f"'{name}'" for name in model.formats)
        yield _item(
            "output_format",
            f"Input should be {choices}",
            "literal_error",
            {"expected": choices},
            given["output_format"],
        )


def _item(name: str, message: str, kind: str, ctx: Mapping[str, Any], value: object) -> Mapping[str, Any]:
    url = f"https://docs.fal.ai/errors/#{kind}"
    return {"loc": ["body", name], "msg": message, "type": kind, "url": url, "ctx": ctx, "input": value}


def _decoded(address: str) -> bytes | None:
    try:
        return base64.b64decode(address.partition(";base64,")[2], validate=True)
    except binascii.Error:
        return None
