"""Cutting an image into overlapping tiles, and joining the processed tiles without seams."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One dimension of an image, in tiles of equal length that begin at `starts`. The unit is that of the image."""

    length: int
    tile: int
    starts: tuple[int, ...]

    def weights(self) -> list[torch.Tensor]:
        """Return the weight of each position of each tile. At every position of the axis the weights add up to one.

        They change smoothly where neighbouring tiles overlap, so that no edge is visible.
        """
        reach = min((b + self.tile - a for b, a in zip(self.starts, self.starts[1:], strict=False)), default=0)
        ramp = torch.arange(self.tile, dtype=torch.float64)
        rising = torch.ones(self.tile, dtype=torch.float64)
        if reach > 0:
            # The centre of the first position is half a step from the edge, so no weight is zero.
            rising = torch.clamp((ramp + 0.5) / reach, max=1.0)
        smooth = torch.sin(rising * (math.pi / 2)) ** 2
        window = torch.minimum(smooth, smooth.flip(0))
        total = torch.zeros(self.length, dtype=torch.float64)
        for start in self.starts:
            total[start : start + self.tile] += window
        return [(window / total[start : start + self.tile]).float() for start in self.starts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """The position of a tile: its number, and the rows and columns that it covers."""

    number: int
    rows: slice
    columns: slice


class Grid:
    """The tiles of an image of `height` times `width`, all of the same size, which does not exceed the image."""

    def __init__(self, size: tuple[int, int], tile: tuple[int, int], overlap: int) -> None:
        self.height, self.width = size
        self.down = axis(self.height, tile[0], overlap)
        self.across = axis(self.width, tile[1], overlap)
        self.tiles = tuple(
            Tile(
                number=number,
                rows=slice(top, top + self.down.tile),
                columns=slice(left, left + self.across.tile),
            )
            for number, (top, left) in enumerate(product(self.down.starts, self.across.starts))
        )

    @property
    def tile_size(self) -> tuple[int, int]:
        """Height and width of each tile."""
        return self.down.tile, self.across.tile

    def cut(self, picture: torch.Tensor, tiles: tuple[Tile, ...], scale: int = 1) -> torch.Tensor:
        """Return tiles of an image (1, channels, height, width), `scale` times as large as the grid, as one batch."""
        return torch.cat([picture[..., _times(tile.rows, scale), _times(tile.columns, scale)] for tile in tiles])


class Canvas:
    """Joins processed tiles by their weights, which add up to one.

    `scale` is the factor by which the results are larger than the tiles.
    """

    def __init__(self, grid: Grid, channels: int, *, scale: int = 1, device: torch.device | str = "cpu") -> None:
        down, across = _scaled(grid.down, scale), _scaled(grid.across, scale)
        self._rows = [weights.to(device) for weights in down.weights()]
        self._columns = [weights.to(device) for weights in across.weights()]
        self._tops, self._lefts = down.starts, across.starts
        self.picture = torch.zeros(1, channels, down.length, across.length, device=device)

    def add(self, tile: Tile, made: torch.Tensor) -> None:
        """Add the result of one tile: (channels, height, width)."""
        row, column = divmod(tile.number, len(self._lefts))
        top, left = self._tops[row], self._lefts[column]
        weighted = made.to(self.picture.device, torch.float32)
        weighted = weighted * self._rows[row][:, None] * self._columns[column]
        self.picture[0, :, top : top + weighted.shape[-2], left : left + weighted.shape[-1]] += weighted


def axis(length: int, tile: int, overlap: int) -> Axis:
    """Divide `length` into the fewest evenly spaced tiles that overlap by at least `overlap`."""
    tile = min(tile, length)
    if tile == length:
        return Axis(length=length, tile=tile, starts=(0,))
    overlap = min(overlap, tile - 1)
    count = math.ceil((length - overlap) / (tile - overlap))
    return Axis(
        length=length,
        tile=tile,
        starts=tuple(round(number * (length - tile) / (count - 1)) for number in range(count)),
    )


def _scaled(one: Axis, scale: int) -> Axis:
    starts = tuple(start * scale for start in one.starts)
    return Axis(length=one.length * scale, tile=one.tile * scale, starts=starts)


def _times(places: slice, scale: int) -> slice:
    return slice(places.start * scale, places.stop * scale)
