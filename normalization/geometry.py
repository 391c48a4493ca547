"""Sizes: what was asked for, and by which factor a model that enlarges gets there."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from normalization.coerce import Invalid
from normalization.fitting import fitted
from normalization.model import Model
from normalization.nesting import excerpt
from normalization.values import Image, Resize, ResizeMode, Size, Value

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
# A derived factor is rounded up at this place: short enough for every wire, and never short of a pixel.
_PLACES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """The sizes of one request. `factor` is None for a model that does not enlarge, `target` where nobody asked."""

    source: Size
    factor: float | None
    target: Size | None
    sized: bool
    mode: ResizeMode
    notes: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether the size that the provider gives is known before it does."""
        return self.factor is not None


def parse_size(value: Value) -> Size | None:
    """Read `WxH` in pixels; None for `auto` and absent. Raises Invalid for anything else."""
    if value is None or value == "auto":
        return None
    match = _SIZE.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if match is None:
        raise Invalid(
            "size",
            f"Invalid value: '{excerpt(str(value))}'. "
            "'size' is 'auto' or width x height in pixels, such as '1024x1024'.",
            "invalid_value",
        )
    return Size(width=int(match[1]), height=int(match[2]))


def geometry(model: Model, image: Image, values: Mapping[str, Value], given: frozenset[str]) -> Geometry:
    """Work out the sizes of a request.

    A model that enlarges runs at the factor the caller gave; without one, at the factor that reaches `size`; without
    either, at its default. Raises Invalid for a size that no factor in the model's range reaches.
    """
    source = Size(width=image.width, height=image.height)
    size = parse_size(values.get("size"))
    mode = cast("ResizeMode", values.get("size_mode") or "crop")
    if model.scaled_by is None:
        return Geometry(source=source, factor=None, target=size, sized=size is not None, mode=mode)
    if size is None or model.scaled_by in given:
        factor = cast("float", values[model.scaled_by])  # as it came: a whole number stays one on the wire
        target = size or scaled(source, factor)
        return Geometry(source=source, factor=factor, target=target, sized=size is not None, mode=mode)
    return _reach(model, model.scaled_by, source, size, mode)


def resizing(shape: Geometry, background: str | None) -> tuple[Resize, ...]:
    """The step that brings a result to the size wanted; none where there is no such size.

    Where the result's size is not known before it is there, what a size of another aspect ratio did to it is told then.
    """
    if shape.target is None:
        return ()
    if not shape.sized:
        # A size that only follows from the factor is the whole picture: a pixel's rounding is stretched, never cut.
        return (Resize(size=shape.target, mode="stretch", background=background),)
    if shape.mode == "fit" and shape.known:
        # Likewise: the aspect ratio is that of the picture, whatever the provider rounded to.
        return (Resize(size=fitted(shape.source, shape.target), mode="stretch", background=background),)
    return (Resize(size=shape.target, mode=shape.mode, background=background, tell=not shape.known),)


def scaled(source: Size, factor: float) -> Size:
    """The size that an enlargement by `factor` gives, rounded to whole pixels."""
    return Size(width=max(1, round(source.width * factor)), height=max(1, round(source.height * factor)))


def _reach(model: Model, scaled_by: str, source: Size, size: Size, mode: ResizeMode) -> Geometry:
    ratios = (size.width / source.width, size.height / source.height)
    wanted = min(ratios) if mode in ("pad", "fit") else max(ratios)
    factor = math.ceil(max(wanted, 1.0) * _PLACES) / _PLACES
    most = model.params[scaled_by].max
    if most is not None and factor > most:
        raise Invalid(
            "size",
            f"'size' {size} is {wanted:.1f} times the picture's {source}; {model.id} enlarges at most {most:g} times, "
            f"to {scaled(source, most)}.",
            "invalid_value",
        )
    notes = (
        (f"The size {size} is below the picture's own {source}: it was enhanced at factor 1 and then made smaller.",)
        if wanted < 1
        else ()
    )
    return Geometry(source=source, factor=factor, target=size, sized=True, mode=mode, notes=notes)
