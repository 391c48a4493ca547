"""The engine `tile-diffusion`: upscaling similar to Clarity, with details that a diffusion model adds."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image, ImageFilter

from providers.worker import weights
from providers.worker.engines.base import (
    Cancelled,
    Device,
    Engine,
    EngineLimits,
    InputRejected,
    Notes,
    Output,
    Progress,
    Value,
    stop_if,
)
from providers.worker.engines.cards import Card, Cards, available_memory, device_faults, find
from providers.worker.engines.diffusion.denoise import DenoisePlan, refine
from providers.worker.engines.diffusion.inputs import INPUTS, DiffusionInputs, asked, factors
from providers.worker.engines.diffusion.latents import Coder
from providers.worker.engines.diffusion.models import Models, fit, load
from providers.worker.engines.diffusion.prompts import TooLong, parse
from providers.worker.engines.diffusion.prompts import encode as encode_prompts
from providers.worker.engines.images import decode, encode, open_picture, upright_size
from providers.worker.engines.network import Network
from providers.worker.engines.options import TileDiffusionOptions, options
from providers.worker.engines.tensors import resized, split_alpha, to_picture, to_tensor, with_alpha

LOGGER = logging.getLogger(__name__)

# Bytes for each pixel of the output: on the device the latents of a step and the ControlNet's input, in single
# precision; in main memory three floats while tiles are joined, the check for NaN values, and copies of the image.
_CARD_BYTES = 32
_BYTES = 40
_MASK_BLUR = 5


@dataclass(slots=True)
class _Loaded:
    """The models that are loaded on a device."""

    models: Models
    coder: Coder
    network: Network | None


class TileDiffusion(Engine):
    """Stable Diffusion with its tile ControlNet, loaded on each of the devices."""

    name = "tile-diffusion"
    version = "1"
    inputs = INPUTS

    def __init__(self, options_given: Mapping[str, object] | None = None) -> None:
        self._options = options(TileDiffusionOptions, self.name, options_given)
        weights.check(self._options.needs(), self.name)
        base, controlnet = self._options.source("base"), self._options.source("controlnet")
        assert base is not None
        assert controlnet is not None
        fit(base, controlnet, self._options.source("vae"))
        self._cards = Cards(find(self._options.devices), self._options.tile_batch)
        self._loaded: dict[Card, _Loaded] = {}
        self._limits = EngineLimits()
        self._memory = 0

    @property
    def model(self) -> str:
        """The engine and its weights: base, ControlNet, and everything else that influences the result."""
        chosen = self._options
        sources = [chosen.source("base"), chosen.source("controlnet"), chosen.source("vae"), chosen.source("upscaler")]
        labels = [found.label for found in sources if found] + [f"lora {name}" for name in chosen.loras]
        return f"{self.name} ({', '.join(labels)})"

    @property
    def slots(self) -> int:
        return len(self._cards.all) * self._options.slots_per_device

    def devices(self) -> Sequence[Device]:
        return [card.describe() for card in self._cards.all]

    def load(self, limits: EngineLimits) -> None:
        Image.init()
        chosen = self._options
        upscaler = chosen.source("upscaler")
        for card in self._cards.all:
            models = load(chosen, card)
            network = Network(upscaler, card, dtype=chosen.dtype, tile=512, overlap=32) if upscaler else None
            self._loaded[card] = _Loaded(models, Coder(models), network)
        self._limits, self._memory = limits, available_memory() // self.slots
        for card in self._cards.all:
            self._warm_up(card)
        room = [card.free_bytes() // _CARD_BYTES // chosen.slots_per_device for card in self._cards.all]
        room.append(self._memory // _BYTES)
        self._limits = EngineLimits(max_output_pixels=min(limits.max_output_pixels, *room))
        LOGGER.info("%s: pictures of up to %s pixels", self.model, self._limits.max_output_pixels)

    def run(self, inputs: Mapping[str, Value], progress: Progress, cancelled: Cancelled) -> Output:
        preferences = asked(inputs)
        opened = open_picture(preferences.image, cancelled)
        self._refuse_too_large(upright_size(opened))
        size = self._target(upright_size(opened), preferences)
        notes = Notes(progress)
        mask = _mask(preferences, upright_size(opened), notes, cancelled)
        source = decode(opened, notes)
        profile = source.info.get("icc_profile")
        colours, alpha = split_alpha(source)
        if preferences.downscaling and max(source.size) > preferences.downscaling_resolution:
            colours = resized(colours, _longest(source.size, preferences.downscaling_resolution))
        with self._cards.one() as card, torch.inference_mode(), device_faults():
            made = self._enlarge(card, colours, size, preferences, progress, notes, cancelled)
        if preferences.sharpen:
            made = made.filter(_sharpening(preferences.sharpen))
        if mask is not None:
            made = Image.composite(source.convert("RGB"), resized(made, source.size), mask)
        return notes.on(encode(with_alpha(made, alpha), preferences.output_format, profile, cancelled))

    def _refuse_too_large(self, size: tuple[int, int]) -> None:
        # With downscaling the result may be small, but the intermediate image has to fit into memory.
        if math.prod(size) > (most := self._limits.max_output_pixels):
            raise InputRejected(
                "image", f"its {size[0]} x {size[1]} pixels are more than the {most} that this worker holds"
            )

    def _target(self, size: tuple[int, int], preferences: DiffusionInputs) -> tuple[int, int]:
        if preferences.downscaling and max(size) > preferences.downscaling_resolution:
            size = _longest(size, preferences.downscaling_resolution)
        width, height = (round(side * preferences.scale_factor) for side in size)
        most = self._limits.max_output_pixels
        if width * height > most:
            raise InputRejected(
                "scale_factor", f"{width} x {height} pixels are more than the {most} that this worker makes"
            )
        return width, height

    def _enlarge(
        self,
        card: Card,
        picture: Image.Image,
        size: tuple[int, int],
        preferences: DiffusionInputs,
        progress: Progress,
        notes: Progress,
        cancelled: Cancelled,
    ) -> Image.Image:
        loaded = self._loaded[card]
        models, coder = loaded.models, loaded.coder
        seed = preferences.seed if preferences.seed is not None else secrets.randbelow(2**32)
        progress(f"{self.model} on {card.name}, to {size[0]} x {size[1]} pixels, seed {seed}")
        prompts = self._prompts(models, preferences, notes)
        sizes = _sizes(picture.size, size, factors(preferences.scale_factor))
        if loaded.network:
            # A pass that keeps the size needs no upscaler.
            for before, after in zip((picture.size, *sizes), sizes, strict=False):
                if after != before:
                    loaded.network.refuse_too_large(before, after, self._memory, "scale_factor")
        told = _Told(progress, [math.prod(one) for one in sizes])
        for number, target in enumerate(sizes):
            began = time.monotonic()
            if loaded.network and target != picture.size:
                picture = loaded.network.enlarge(picture, target, _unheard, cancelled)
            picture = resized(picture, target)
            stop_if(cancelled)
            tile = (preferences.tiling_height, preferences.tiling_width)
            pixels = _padded(to_tensor(picture), tile, models)
            plan = DenoisePlan(
                scheduler=preferences.scheduler,
                steps=preferences.num_inference_steps,
                strength=preferences.strength(number),
                guidance=preferences.dynamic,
                resemblance=preferences.resemblance,
                seed=(seed + number) % 2**32,
                tile=tile,
                overlap=self._options.overlap,
            )
            latents = refine(models, coder.encode(pixels, cancelled), pixels, prompts, plan, told.at(number), cancelled)
            decoded = coder.decode(latents, cancelled)
            picture = to_picture(decoded[..., : target[1], : target[0]])
            seconds = time.monotonic() - began
            progress(f"pass {number + 1} of {len(sizes)}: {target[0]} x {target[1]} pixels in {seconds:.1f} s")
        return picture

    def _prompts(self, models: Models, preferences: DiffusionInputs, note: Progress) -> torch.Tensor:
        negative, positive = parse(preferences.negative_prompt), parse(preferences.prompt)
        if named := dict.fromkeys((*positive.loras, *negative.loras)):
            there = ", ".join(f"{name} at {lora.weight:g}" for name, lora in self._options.loras.items()) or "none"
            note(f"LoRAs are not for prompts to choose: {', '.join(named)} was taken out. Always on: {there}.")
        try:
            return encode_prompts(
                models.tokenizer, models.text_encoder, (negative, positive), models.vectors, models.card.device
            )
        except TooLong as error:
            name = "prompt" if error.prompt is positive else "negative_prompt"
            raise InputRejected(name, str(error)) from error

    def _warm_up(self, card: Card) -> None:
        """Run once, so that algorithms are selected and memory is allocated before a client waits."""
        values: dict[str, Any] = {name: field.default for name, field in INPUTS.items() if field.default is not None}
        # One full batch of tiles of the default size on a GPU; on a CPU that would take minutes.
        side = 64 if card.device.type == "cpu" else 2048
        values |= {"image": b"", "creativity": 1.0, "num_inference_steps": 1, "scheduler": "Euler"}
        with torch.inference_mode(), device_faults():
            small = Image.new("RGB", (side, side))
            self._enlarge(card, small, small.size, asked(values), _unheard, _unheard, lambda: False)


class _Told:
    """Reports the progress over all passes, weighted by their pixels."""

    def __init__(self, progress: Progress, pixels: Sequence[int]) -> None:
        self._progress, self._pixels = progress, pixels

    def at(self, number: int) -> Any:
        def stepped(step: int, steps: int) -> None:
            done = sum(self._pixels[:number]) + self._pixels[number] * step / steps
            # The last percent is reserved for decoding and encoding.
            share = int(99 * done / sum(self._pixels))
            self._progress(f"progress: {share} % (pass {number + 1} of {len(self._pixels)}, step {step} of {steps})")

        return stepped


def _unheard(line: str) -> None:
    """Discard a progress line."""


def _sizes(source: tuple[int, int], target: tuple[int, int], scales: Sequence[float]) -> list[tuple[int, int]]:
    """Return the size after each pass. The last is exactly the target, regardless of rounding in the others."""
    factor, sizes = 1.0, []
    for scale in scales[:-1]:
        factor *= scale
        sizes.append((round(source[0] * factor), round(source[1] * factor)))
    return [*sizes, target]


def _padded(pixels: torch.Tensor, tile: tuple[int, int], models: Models) -> torch.Tensor:
    """Pad pixels by repeating the last row and column, up to sizes that the networks can halve repeatedly."""
    for dimension, length in ((-2, tile[0]), (-1, tile[1])):
        side = pixels.shape[dimension]
        # A single tile must be divisible by the scales of VAE and UNet; with several, whole latents suffice.
        step = models.vae_scale * (models.unet_scale if side < length * models.vae_scale else 1)
        if missing := -side % step:
            places = torch.arange(side + missing).clamp_(max=side - 1)
            pixels = pixels.index_select(dimension, places)
    return pixels


def _longest(size: tuple[int, int], longest: int) -> tuple[int, int]:
    factor = longest / max(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _sharpening(sharpen: float) -> ImageFilter.Kernel:
    around = -sharpen / 10
    return ImageFilter.Kernel((3, 3), [around] * 4 + [1 - 8 * around] + [around] * 4, scale=1)


def _mask(
    preferences: DiffusionInputs, size: tuple[int, int], progress: Progress, cancelled: Cancelled
) -> Image.Image | None:
    if preferences.mask is None:
        return None
    opened = open_picture(preferences.mask, cancelled)
    if upright_size(opened) != size:
        found = upright_size(opened)
        raise InputRejected("mask", f"it has {found[0]} x {found[1]} pixels, and the picture {size[0]} x {size[1]}")
    return decode(opened, progress).convert("L").filter(ImageFilter.GaussianBlur(_MASK_BLUR))
