"""The settings of engines with weights, and the weights they need. Does not import torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from providers.worker.engines.base import WeightsUnusable
from providers.worker.weights import Need, WeightsSource, source

Dtype = Literal["auto", "fp16", "bf16", "fp32"]
Kind = TypeVar("Kind", bound="Options")


class Options(BaseModel, ABC):
    """Settings common to all engines with weights. `weights` is the folder of fetched weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    weights: Path
    devices: list[str] = Field(default=["auto"], min_length=1)
    slots_per_device: int = Field(default=1, ge=1, le=64)
    dtype: Dtype = "auto"
    tile_batch: int = Field(default=8, ge=1, le=64)
    compile: bool = False

    @abstractmethod
    def needs(self) -> tuple[Need, ...]:
        """Return the weights that are needed. Raises WeightsUnusable if the settings name none."""


class EsrganOptions(Options):
    """The settings of `esrgan`. Sizes in pixels of the input."""

    model: str
    tile: int = Field(default=512, ge=32, le=8192)
    overlap: int = Field(default=32, ge=0, le=512)
    tile_batch: int = Field(default=4, ge=1, le=64)

    def network(self) -> WeightsSource:
        return source("model", self.model, self.weights)

    def needs(self) -> tuple[Need, ...]:
        return (_one_file("model", self.network()),)


class Lora(BaseModel):
    """A LoRA that is always applied."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    weight: float = Field(default=1.0, ge=-4, le=4)


class TileDiffusionOptions(Options):
    """The settings of `tile-diffusion`. `overlap` is in latent pixels."""

    base: str
    controlnet: str
    vae: str = ""
    upscaler: str = ""
    overlap: int = Field(default=8, ge=0, le=64)
    loras: dict[str, Lora] = {}
    embeddings: dict[str, str] = {}

    def source(self, role: Literal["base", "controlnet", "vae", "upscaler"]) -> WeightsSource | None:
        """Return the source of a part; None if the part is not used."""
        text: str = getattr(self, role)
        return source(role, text, self.weights) if text else None

    def lora(self, name: str) -> WeightsSource:
        return source(f"loras.{name}", self.loras[name].file, self.weights)

    def embedding(self, name: str) -> WeightsSource:
        return source(f"embeddings.{name}", self.embeddings[name], self.weights)

    def needs(self) -> tuple[Need, ...]:
        base, controlnet = self.source("base"), self.source("controlnet")
        if base is None or controlnet is None:
            raise WeightsUnusable("base and controlnet must name weights and cannot be empty")
        vae, upscaler = self.source("vae"), self.source("upscaler")
        parts = ("text_encoder", "unet") if vae else ("text_encoder", "unet", "vae")
        return (
            Need(role="base", source=base, parts=parts, plain=("scheduler", "tokenizer")),
            Need(role="controlnet", source=controlnet, parts=("",)),
            *([Need(role="vae", source=vae, parts=("",))] if vae else []),
            *([_one_file("upscaler", upscaler)] if upscaler else []),
            *(_one_file(f"loras.{name}", self.lora(name)) for name in self.loras),
            *(_one_file(f"embeddings.{name}", self.embedding(name)) for name in self.embeddings),
        )


def options(kind: type[Kind], engine: str, given: Mapping[str, object] | None) -> Kind:
    """Return an engine's settings. Raises WeightsUnusable, with the setting's name, for invalid ones."""
    if not given:
        raise WeightsUnusable(f"the config needs a section [{engine}] that names its weights")
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise WeightsUnusable(f"[{engine}] {problems}") from None


KINDS: Mapping[str, type[Options]] = {"esrgan": EsrganOptions, "tile-diffusion": TileDiffusionOptions}
"""The engines with weights, and the classes of their settings."""


def _one_file(role: str, found: WeightsSource) -> Need:
    if found.repository and not found.file:
        raise WeightsUnusable(f"{role}: {found.text} is a repository; name a file in it, as owner/name@revision:file")
    return Need(role=role, source=found)
