"""Pictures to latents and back, in tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from providers.worker.engines.base import Cancelled
from providers.worker.engines.cards import Batch, NoRoom
from providers.worker.engines.diffusion.models import Models
from providers.worker.engines.tensors import to_unit
from providers.worker.engines.tiles import Canvas, Grid, Tile

# Latent pixels a side. Larger tiles have fewer borders, and take more memory.
_SIDE = 128
_LEAST_SIDE = 16


class Coder:
    """The VAE of a card, one tile at a time. Where memory does not suffice the tiles are smaller from then on."""

    def __init__(self, models: Models, side: int = _SIDE) -> None:
        self.side = side
        self._models = models
        self._vae = models.vae
        self._batch = Batch(1)

    def encode(self, pixels: torch.Tensor, cancelled: Cancelled) -> torch.Tensor:
        """Return the latents (1, channels, height, width; float32, on the card) of an RGB picture of bytes."""
        scale, card = self._models.vae_scale, self._models.card

        def once(grid: Grid) -> torch.Tensor:
            canvas = Canvas(grid, self._vae.config.latent_channels, device=card.device)

            def call(tiles: Sequence[Tile]) -> torch.Tensor:
                cut = to_unit(grid.cut(pixels, tuple(tiles), scale), card.device, self._models.vae_dtype)
                # The mean: a draw would only add noise.
                mean: torch.Tensor = self._vae.encode(cut * 2 - 1).latent_dist.mode()
                return mean

            for tile, made in self._batch.run(grid.tiles, call, cancelled):
                canvas.add(tile, made)
            return canvas.picture

        height, width = pixels.shape[-2] // scale, pixels.shape[-1] // scale
        return self._tiled((height, width), once) * self._vae.config.scaling_factor

    def decode(self, latents: torch.Tensor, cancelled: Cancelled) -> torch.Tensor:
        """Return the picture of latents, from 0 to 1, in the machine's own memory: the card's is for the networks."""
        latents = (latents / self._vae.config.scaling_factor).to(self._models.vae_dtype)

        def once(grid: Grid) -> torch.Tensor:
            canvas = Canvas(grid, 3, scale=self._models.vae_scale)

            def call(tiles: Sequence[Tile]) -> torch.Tensor:
                picture: torch.Tensor = self._vae.decode(grid.cut(latents, tuple(tiles)), return_dict=False)[0]
                return picture

            for tile, made in self._batch.run(grid.tiles, call, cancelled):
                canvas.add(tile, made)
            return canvas.picture

        return self._tiled((latents.shape[-2], latents.shape[-1]), once).add_(1).div_(2)

    def _tiled(self, size: tuple[int, int], once: Callable[[Grid], torch.Tensor]) -> torch.Tensor:
        while True:
            side = min(self.side, max(size))
            try:
                return once(Grid(size, (side, side), max(4, side // 8)))
            except NoRoom:
                smaller = -(-(side // 2) // 8) * 8
                if smaller < _LEAST_SIDE or smaller >= side:
                    raise
                self.side = min(self.side, smaller)
