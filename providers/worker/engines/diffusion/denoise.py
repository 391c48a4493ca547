"""The tile loop: every step is taken on the whole picture, from what the networks say of its tiles.

The networks see a tile at a time, at the size they were trained on. What they predict for neighbouring tiles is blended
where those overlap, and the scheduler takes its step on the whole: so tiles agree while the picture forms, and not only
where they are glued together in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from providers.worker.engines.base import Cancelled
from providers.worker.engines.diffusion.models import Models
from providers.worker.engines.diffusion.schedulers import Sampler
from providers.worker.engines.tensors import to_unit
from providers.worker.engines.tiles import Canvas, Grid, Tile


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoisePlan:
    """How a picture is refined. `tile` (height, width) and `overlap` are in latent pixels.

    `strength` is from 0 (nothing changes) to 1; a `guidance` of 1 is none; a `resemblance` of 0 is no ControlNet. Each
    block of the ControlNet counts `decay` times the one below it ("my prompt is more important"); the deepest, which
    holds the composition, counts fully.
    """

    scheduler: str
    steps: int
    strength: float
    guidance: float
    resemblance: float
    seed: int
    tile: tuple[int, int]
    overlap: int
    decay: float = 0.825

    def sampler(self, models: Models) -> Sampler:
        return Sampler(self.scheduler, models.trained, self.steps, self.strength)


def refine(
    models: Models,
    latents: torch.Tensor,
    pixels: torch.Tensor,
    prompts: torch.Tensor,
    plan: DenoisePlan,
    stepped: Callable[[int, int], None],
    cancelled: Cancelled,
) -> torch.Tensor:
    """Return refined latents. `pixels` is the picture as bytes, `prompts` the negative and the positive one, encoded.

    Tells `stepped` how many steps are done, and of how many. Raises Stopped within a step, and Failure.
    """
    sampler = plan.sampler(models)
    if not sampler.steps:
        return latents
    generator = torch.Generator("cpu").manual_seed(plan.seed)
    grid = Grid((latents.shape[-2], latents.shape[-1]), plan.tile, plan.overlap)
    predict = _Predictor(models, grid, prompts, plan)
    if plan.resemblance:
        predict.look(pixels, cancelled)
    latents = sampler.begin(latents, generator)
    for number, timestep in enumerate(sampler.timesteps, 1):
        predicted = predict(sampler.scaled(latents, timestep), timestep, cancelled)
        latents = sampler.step(predicted, timestep, latents, generator).float()
        stepped(number, len(sampler.timesteps))
    return latents


class _Predictor:
    """What the networks predict for a whole picture."""

    def __init__(self, models: Models, grid: Grid, prompts: torch.Tensor, plan: DenoisePlan) -> None:
        self._models, self._grid, self._plan = models, grid, plan
        # Without guidance the negative prompt has no say, and half of the work is saved.
        self._prompts = prompts if plan.guidance != 1 else prompts[1:]
        self._seen: dict[int, torch.Tensor] = {}

    def look(self, pixels: torch.Tensor, cancelled: Cancelled) -> None:
        """Have the ControlNet look at each tile of the picture: it is the same for every step."""
        models = self._models

        def call(tiles: Sequence[Tile]) -> torch.Tensor:
            cut = self._grid.cut(pixels, tuple(tiles), models.vae_scale)
            seen: torch.Tensor = models.embed(to_unit(cut, models.card.device, models.dtype))
            return seen

        for tile, seen in models.card.batch.run(self._grid.tiles, call, cancelled):
            self._seen[tile.number] = seen.clone()

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor, cancelled: Cancelled) -> torch.Tensor:
        channels, device = latents.shape[1], latents.device
        canvas = Canvas(self._grid, channels, device=device)
        given = latents.to(self._models.dtype)
        moment = timestep.to(device)

        def call(tiles: Sequence[Tile]) -> torch.Tensor:
            return self._predict(self._grid.cut(given, tuple(tiles)), tiles, moment)

        for tile, made in self._models.card.batch.run(self._grid.tiles, call, cancelled):
            canvas.add(tile, made)
        return canvas.picture

    def _predict(self, cut: torch.Tensor, tiles: Sequence[Tile], moment: torch.Tensor) -> torch.Tensor:
        halves = len(self._prompts)
        sample = torch.cat([cut] * halves)
        prompts = self._prompts.repeat_interleave(len(tiles), dim=0)
        held = self._held(sample, prompts, tiles, moment) if self._seen else {}
        predicted: torch.Tensor = self._models.unet(
            sample, moment, encoder_hidden_states=prompts, return_dict=False, **held
        )[0]
        if halves == 1:
            return predicted
        without, within = predicted.chunk(2)
        return without + self._plan.guidance * (within - without)

    def _held(
        self, sample: torch.Tensor, prompts: torch.Tensor, tiles: Sequence[Tile], moment: torch.Tensor
    ) -> dict[str, object]:
        seen = torch.stack([self._seen[tile.number] for tile in tiles]).repeat(len(self._prompts), 1, 1, 1)
        down, middle = self._models.controlnet(
            sample, moment, encoder_hidden_states=prompts, controlnet_cond=seen, return_dict=False
        )
        deepest = len(down)
        return {
            "down_block_additional_residuals": [
                residual * (self._plan.resemblance * self._plan.decay ** (deepest - number))
                for number, residual in enumerate(down)
            ],
            "mid_block_additional_residual": middle * self._plan.resemblance,
        }
