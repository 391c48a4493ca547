"""The inputs of `tile-diffusion`, by the names of Clarity's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from providers.worker.engines.base import Field, InputRejected, Value
from providers.worker.engines.diffusion.schedulers import SCHEDULERS
from providers.worker.engines.images import OUTPUT_FORMATS

# What may be looked at before the tokens are counted.
_LONGEST_PROMPT = 32_000
_MOST_BRACKETS = 200

INPUTS: Mapping[str, Field] = {
    "image": Field(type="picture", required=True, description="The picture: png, jpeg, webp, gif or avif."),
    "prompt": Field(
        type="string",
        default="masterpiece, best quality, highres",
        description="What the picture shows: (word:1.3) weighs more, [word] less.",
    ),
    "negative_prompt": Field(
        type="string",
        default="(worst quality, low quality, normal quality:2)",
        description="What to keep out; without effect where dynamic is 1.",
    ),
    "scale_factor": Field(
        type="number",
        default=2.0,
        minimum=1,
        maximum=16,
        description="Output size over input size, per side. Above 2 in passes: 3 is 2, then 1.5.",
    ),
    "dynamic": Field(type="number", default=6.0, minimum=1, maximum=50, description="The guidance scale: contrast."),
    "creativity": Field(
        type="number",
        default=0.35,
        minimum=0,
        maximum=1,
        description="The denoising strength of the first pass: how far the result may leave the picture.",
    ),
    "multistep_factor": Field(
        type="number",
        default=0.8,
        minimum=0,
        maximum=2,
        description="By what creativity is multiplied, each later pass.",
    ),
    "resemblance": Field(
        type="number",
        default=0.6,
        minimum=0,
        maximum=3,
        description="The weight of the ControlNet: how closely the structure is held. 0 is without it.",
    ),
    "num_inference_steps": Field(
        type="integer", default=18, minimum=1, maximum=100, description="Steps, of which the share creativity is run."
    ),
    "scheduler": Field(
        type="string", default="DPM++ 3M SDE Karras", choices=tuple(SCHEDULERS), description="The sampler."
    ),
    "seed": Field(
        type="integer",
        minimum=0,
        maximum=2**32 - 1,
        description="One more for each later pass. Drawn, and told in the logs, where it is not given.",
    ),
    "tiling_width": Field(
        type="integer",
        default=112,
        minimum=16,
        maximum=256,
        description="Of a tile, in latent pixels; a multiple of 16.",
    ),
    "tiling_height": Field(
        type="integer", default=144, minimum=16, maximum=256, description="Smaller tiles invent more."
    ),
    "downscaling": Field(type="boolean", default=False, description="Shrink the picture first, if it is larger."),
    "downscaling_resolution": Field(
        type="integer", default=768, minimum=64, maximum=4096, description="The longer side after that, in pixels."
    ),
    "sharpen": Field(
        type="number",
        default=0.0,
        minimum=0,
        maximum=10,
        description="Sharpen by a 3 x 3 kernel in the end; 0 is none.",
    ),
    "mask": Field(
        type="picture",
        description="Of the picture's size: where it is white the source is restored, and the result has its size.",
    ),
    "handfix": Field(
        type="string", default="disabled", choices=("disabled",), description="This worker does not repair hands."
    ),
    "output_format": Field(type="string", default="png", choices=OUTPUT_FORMATS, description="Both are without loss."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffusionInputs:
    """What a caller asks for, of the types that INPUTS declares. Pictures are bytes."""

    image: bytes
    prompt: str
    negative_prompt: str
    scale_factor: float
    dynamic: float
    creativity: float
    multistep_factor: float
    resemblance: float
    num_inference_steps: int
    scheduler: str
    tiling_width: int
    tiling_height: int
    downscaling: bool
    downscaling_resolution: int
    sharpen: float
    handfix: str
    output_format: str
    seed: int | None = None
    mask: bytes | None = None

    def strength(self, number: int) -> float:
        """Return the creativity of a pass, from 0 on; more than all of it there is not."""
        return min(1.0, self.creativity * self.multistep_factor**number)


def asked(inputs: Mapping[str, Value]) -> DiffusionInputs:
    """Return checked inputs with their types. Raises InputRejected for what only the engine can tell."""
    # They were checked against INPUTS.
    found = DiffusionInputs(**cast("dict[str, Any]", inputs))
    for name in ("tiling_width", "tiling_height"):
        if getattr(found, name) % 16:
            raise InputRejected(name, f"{getattr(found, name)} is no multiple of 16")
    for name in ("prompt", "negative_prompt"):
        text = getattr(found, name)
        if len(text) > _LONGEST_PROMPT:
            raise InputRejected(name, f"it has {len(text)} characters, and {_LONGEST_PROMPT} are taken at most")
        if text.count("(") + text.count("[") > _MOST_BRACKETS:
            raise InputRejected(name, f"it has more than {_MOST_BRACKETS} brackets")
    return found


def factors(scale: float) -> tuple[float, ...]:
    """Return the factor of each pass: 2 as often as it goes, then the rest. A rest of under 5 % is not worth a pass."""
    found = []
    while scale > 2.1:
        found.append(2.0)
        scale /= 2
    return (*found, scale)
