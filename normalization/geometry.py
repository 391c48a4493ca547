"""Sizes: what was asked for, and by which factor a model that enlarges gets there."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from normalization.coerce import Invalid
from normalization.model import Model
from normalization.nesting import excerpt
from normalization.values import Image, ResizeMode, Size, Value

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


def scaled(source: Size, factor: float) -> Size:
    """The size that an enlargement by `factor` gives, rounded to whole pixels."""
    return Size(width=max(1, round(source.width * factor)), height=max(1, round(source.height * factor)))


def _reach(model: Model, scaled_by: str, source: Size, size: Size, mode: ResizeMode) -> Geometry:
    ratios = (size.width / source.width, size.height / source.height)
    wanted = min(ratios) if mode == "pad" else max(ratios)
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
