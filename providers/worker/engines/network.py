"""Upscaling networks: any that spandrel can load, run on tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image

from providers.worker.engines.base import Cancelled, InputRejected, Progress, WeightsUnusable, stop_if
from providers.worker.engines.cards import Card, device_faults, dtype_for
from providers.worker.engines.tensors import resized, to_picture, to_tensor, to_unit
from providers.worker.engines.tiles import Canvas, Grid, Tile
from providers.worker.engines.vision import import_torchvision
from providers.worker.weights import WeightsSource

# Bytes for each pixel of a network's output: three floats while the tiles are joined, the check for NaN values, the
# 8-bit samples, and those of the encoder.
_BYTES_PER_PIXEL = 24


class Network:
    """A network on a device. `scale` is its upscaling factor: 1, 2, 4, …

    `tile` and `overlap` are in pixels of its input.
    """

    def __init__(
        self, source: WeightsSource, card: Card, *, dtype: str, tile: int, overlap: int, compiled: bool = False
    ) -> None:
        import_torchvision()
        from spandrel import ImageModelDescriptor, ModelLoader, ModelTiling, UnsupportedModelError

        try:
            # spandrel reads pickles with a restricted unpickler, which creates only tensors.
            found = ModelLoader(device="cpu").load_from_file(source.path)
        except UnsupportedModelError as error:
            raise WeightsUnusable(f"{source.label} is no network that spandrel knows") from error
        if not isinstance(found, ImageModelDescriptor) or found.input_channels != 3 or found.output_channels != 3:
            raise WeightsUnusable(f"{source.label} does not make one colour picture of another")
        self.dtype = dtype_for(card.name, dtype, half=found.supports_half, bfloat=found.supports_bfloat16)
        self.scale = int(found.scale)
        self.label = f"{source.label} ({found.architecture.name})"
        self._whole = found.tiling is ModelTiling.INTERNAL
        self._card, self._tile, self._overlap = card, tile, min(overlap, tile // 2)
        self._model = found.eval().to(card.device, self.dtype)
        if card.device.type == "cuda":
            self._model.model.to(memory_format=torch.channels_last)
        if compiled:
            self._model.model.compile()

    def enlarge(
        self, picture: Image.Image, size: tuple[int, int], progress: Progress, cancelled: Cancelled
    ) -> Image.Image:
        """Return an RGB image at `size` (width, height), enlarged in as many runs of the network as necessary.

        A result that is too large is shrunk. With several runs, the input of the last one is shrunk, so that its result
        has the right size.
        """
        for given in self.sizes(picture.size, size):
            stop_if(cancelled)
            picture = self._once(resized(picture, given), progress, cancelled)
        stop_if(cancelled)
        return resized(picture, size)

    def refuse_too_large(self, source: tuple[int, int], target: tuple[int, int], memory: int, name: str) -> None:
        """Raise InputRejected about the input `name` if intermediate results do not fit into `memory` bytes.

        They may be larger than the requested size.
        """
        made = max(math.prod(given) * self.scale**2 for given in self.sizes(source, target))
        if made > (most := memory // _BYTES_PER_PIXEL):
            raise InputRejected(
                name,
                f"the network makes {made} pixels on the way to {target[0]} x {target[1]}, more than the "
                f"{most} that the memory holds: send a smaller picture",
            )

    def sizes(self, source: tuple[int, int], target: tuple[int, int]) -> list[tuple[int, int]]:
        """Return the sizes of the network's inputs, one for each run."""
        runs = [source]
        if self.scale > 1:
            while math.prod(runs[-1]) * self.scale**2 < math.prod(target) * 0.999:
                made = tuple(side * self.scale for side in runs[-1])
                last = tuple(math.ceil(side / self.scale) for side in target)
                runs.append((min(made[0], last[0]), min(made[1], last[1])))
        return runs

    def _once(self, picture: Image.Image, progress: Progress, cancelled: Cancelled) -> Image.Image:
        pixels = to_tensor(picture)
        height, width = pixels.shape[-2:]
        side = max(height, width) if self._whole else self._tile
        grid = Grid((height, width), (side, side), self._overlap)
        canvas = Canvas(grid, 3, scale=self.scale)

        def call(tiles: Sequence[Tile]) -> torch.Tensor:
            batch = to_unit(grid.cut(pixels, tuple(tiles)), self._card.device, self.dtype)
            return self._model(batch)

        done = 0
        with torch.inference_mode():
            for tile, made in self._card.batch.run(grid.tiles, call, cancelled):
                with device_faults():
                    canvas.add(tile, made)
                done += 1
                progress(f"progress: {100 * done // len(grid.tiles)} % of enlarging (tile {done} of {len(grid.tiles)})")
        return to_picture(canvas.picture)
