"""Sizes: what was requested, the factor that reaches it, and how aspect ratios meet."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from normalization.images.fitting import fitted
from normalization.parameters.coerce import InvalidValue
from normalization.parameters.nesting import excerpt
from normalization.parameters.reshaping import Shaped
from normalization.parameters.schema import Model
from normalization.values import Resize, ResizeMode, Size, Value

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
# A derived factor is rounded up at this place: short enough for every wire, and never short of a pixel.
_PLACES = 10_000


class OutOfReach(InvalidValue):
    """No factor in the model's range enlarges the picture to the size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """The sizes of one request. `factor` is None for a model that does not enlarge, `target` where nobody asked.

    `image` is what the caller sent, `source` what is enlarged. `known` says whether the size of the provider's result
    is known before it is there.
    """

    image: Size
    source: Size
    factor: float | None
    target: Size | None
    sized: bool
    mode: ResizeMode
    known: bool = True
    notes: tuple[str, ...] = ()


def parse_size(value: Value) -> Size | None:
    """Read `WxH` in pixels; None for `auto` and absent. Raises InvalidValue for anything else."""
    if value is None or value == "auto":
        return None
    match = _SIZE.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if match is None:
        raise InvalidValue(
            "size",
            f"Invalid value: '{excerpt(str(value))}'. "
            "'size' is 'auto' or width x height in pixels, such as '1024x1024'.",
            "invalid_value",
        )
    return Size(width=int(match[1]), height=int(match[2]))


def geometry(
    model: Model, image: Size, values: Mapping[str, Value], given: frozenset[str], shape: Shaped | None = None
) -> Geometry:
    """Work out the sizes of a request.

    A model that enlarges runs at the factor the caller gave; without one, at the factor that reaches `size`; without
    either, at its default. `shape` is what other parameters do to the size. Raises InvalidValue: OutOfReach for a size
    that no factor in the model's range reaches.
    """
    shape = shape or Shaped(source=image)
    source, size = shape.source, parse_size(values.get("size"))
    mode = cast("ResizeMode", values.get("size_mode") or "crop")
    if model.scaled_by is None:
        return Geometry(
            image=image, source=source, factor=None, target=size, sized=size is not None, mode=mode, known=False
        )
    known = not shape.by
    if size is None or model.scaled_by in given:
        factor = cast("float", values[model.scaled_by])  # as it came: a whole number stays one on the wire
        target = size or (scaled(source, factor) if known else None)
        notes = _first_notes(shape, target if size is None else None)
    else:
        factor, reached = _reach(model, model.scaled_by, source, size, mode)
        target, notes = size, (*_first_notes(shape, None), *reached)
    return Geometry(
        image=image,
        source=source,
        factor=factor,
        target=target,
        sized=size is not None,
        mode=mode,
        known=known,
        notes=notes,
    )


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
        return (Resize(size=fitted(shape.image, shape.target), mode="stretch", background=background),)
    return (Resize(size=shape.target, mode=shape.mode, background=background, tell=not shape.known),)


def scaled(source: Size, factor: float) -> Size:
    """The size that an enlargement by `factor` gives, rounded to whole pixels."""
    return Size(width=max(1, round(source.width * factor)), height=max(1, round(source.height * factor)))


def _first_notes(shape: Shaped, result: Size | None) -> tuple[str, ...]:
    notes = []
    if shape.first is not None:
        follows = f"so the result is {result}" if result is not None else "and enlarged from there"
        notes.append(f"With {shape.first} the input was made {shape.source} first, {follows}.")
    if shape.by:
        notes.append(f"{' and '.join(shape.by)} may change the size of the result: that is not known beforehand.")
    return tuple(notes)


def _reach(model: Model, scaled_by: str, source: Size, size: Size, mode: ResizeMode) -> tuple[float, tuple[str, ...]]:
    ratios = (size.width / source.width, size.height / source.height)
    wanted = min(ratios) if mode in ("pad", "fit") else max(ratios)
    factor = math.ceil(max(wanted, 1.0) * _PLACES) / _PLACES
    most = model.params[scaled_by].max
    if most is not None and factor > most:
        raise OutOfReach(
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
    return factor, notes
