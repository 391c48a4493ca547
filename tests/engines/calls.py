"""Calling an engine as the worker does, and looking at what it made."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from PIL import Image, ImageChops, ImageStat

from providers.worker.engines.base import Engine, Output

SMALL = {"tiling_width": 16, "tiling_height": 16, "num_inference_steps": 4, "scheduler": "Euler", "seed": 7}


def perform(
    engine: Engine,
    *,
    lines: list[str] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    **inputs: Any,
) -> Output:
    """Run an engine with its defaults, and small tiles where it has them; `lines` is given its log."""
    values: dict[str, Any] = {name: field.default for name, field in engine.inputs.items() if field.default is not None}
    values |= {name: value for name, value in SMALL.items() if name in engine.inputs}
    values |= {"image": encoded(photo(64, 48))}
    log = [] if lines is None else lines
    return engine.run(values | inputs, log.append, cancelled)


def photo(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A piece of the photograph that ships with the tests."""
    from tests.support.paths import COFFEE

    with Image.open(COFFEE) as whole:
        return whole.crop((200, 120, 200 + width, 120 + height)).convert(mode)


def encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def picture(output: Output) -> Image.Image:
    made = Image.open(io.BytesIO(output.data))
    made.load()
    return made


def difference(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of two pictures, in steps of 255."""
    assert one.size == other.size
    return sum(ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean) / 3
