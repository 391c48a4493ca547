"""Cutting and joining: every place counts once, and no border is to be seen."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.worker.engines.tiles import Canvas, Grid, axis

sides = st.integers(min_value=1, max_value=300)


@given(sides, st.integers(min_value=1, max_value=128), st.integers(min_value=0, max_value=64))
@settings(max_examples=150)
def test_axis(length: int, tile: int, overlap: int) -> None:
    """The tiles cover all of it, neighbours share enough, none reaches beyond, and the weights add up to one."""
    found = axis(length, tile, overlap)

    assert found.starts[0] == 0
    assert found.starts[-1] + found.tile == length
    shared = [a + found.tile - b for a, b in zip(found.starts, found.starts[1:], strict=False)]
    assert all(one >= min(overlap, tile - 1) for one in shared)
    assert list(found.starts) == sorted(set(found.starts))
    total = torch.zeros(length)
    for start, weights in zip(found.starts, found.weights(), strict=True):
        assert bool((weights > 0).all())
        total[start : start + found.tile] += weights
    assert torch.allclose(total, torch.ones(length), atol=1e-6)


@pytest.mark.parametrize("scale", [1, 2, 8])
def test_joined_is_what_was_cut(scale: int) -> None:
    """Tiles that nothing happens to come together as the picture that they were cut from."""
    picture = torch.rand(1, 3, 61 * scale, 47 * scale)
    grid = Grid((61, 47), (16, 24), 5)
    canvas = Canvas(grid, 3, scale=scale)

    for tile in grid.tiles:
        canvas.add(tile, grid.cut(picture, (tile,), scale)[0])

    assert len(grid.tiles) > 4
    assert torch.allclose(canvas.picture, picture, atol=1e-6)


def test_weights_are_smooth() -> None:
    """Over what neighbours share the weight rises in steps that are small against it: no edge."""
    [first, second] = axis(48, 32, 16).weights()

    rise = (second[1:] - second[:-1]).abs()
    assert float(rise.max()) < 2 / 16
    assert float(first[0]) == float(second[-1]) == pytest.approx(1)


def test_a_picture_that_is_smaller_than_a_tile() -> None:
    """It is one tile of its own size."""
    grid = Grid((10, 7), (64, 64), 8)

    assert len(grid.tiles) == 1
    assert grid.tile_size == (10, 7)
