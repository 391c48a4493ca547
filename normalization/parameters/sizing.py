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
# A derived factor is rounded up to four decimals: short enough to send, and never a pixel too small.
_PLACES = 10_000


class OutOfReach(InvalidValue):
    """No factor in the model's range enlarges the image to the size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """The sizes of one request. `factor` is None for a model that does not enlarge; `target` is None if unknown.

    `image` is the size of the client's image, `source` the size that is enlarged. `known` says whether the size of the
    provider's result is known in advance.
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
    """Parse `WxH` in pixels; None for `auto` or an absent value. Raises InvalidValue for anything else."""
    if value is None or value == "auto":
        return None
    match = _SIZE.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    if match is None:
        raise InvalidValue(
            "size",
            f"Invalid value: '{excerpt(str(value))}'. "
            "'size' must be 'auto' or width x height in pixels, such as '1024x1024'.",
            "invalid_value",
        )
    return Size(width=int(match[1]), height=int(match[2]))


def geometry(
    model: Model, image: Size, values: Mapping[str, Value], given: frozenset[str], shape: Shaped | None = None
) -> Geometry:
    """Compute the sizes of a request.

    A model that enlarges runs at the client's factor; without one, at the factor that reaches `size`; without either,
    at its default. `shape` is how other parameters change the size. Raises InvalidValue, and OutOfReach for a size that
    no factor in the model's range reaches.
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
        factor = cast("float", values[model.scaled_by])  # unchanged, so that an integer is sent as one
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
    """The step that resizes a result to the target size; empty without a target.

    If the result's size is not known in advance, the step itself reports how it changed the aspect ratio.
    """
    if shape.target is None:
        return ()
    if not shape.sized:
        # A size derived from the factor keeps the whole image: a rounding difference is stretched, never cropped.
        return (Resize(size=shape.target, mode="stretch", background=background),)
    if shape.mode == "fit" and shape.known:
        # Likewise: the aspect ratio is that of the input, however the provider rounded.
        return (Resize(size=fitted(shape.image, shape.target), mode="stretch", background=background),)
    return (Resize(size=shape.target, mode=shape.mode, background=background, tell=not shape.known),)


def scaled(source: Size, factor: float) -> Size:
    """The size after enlarging by `factor`, rounded to whole pixels."""
    return Size(width=max(1, round(source.width * factor)), height=max(1, round(source.height * factor)))


def _first_notes(shape: Shaped, result: Size | None) -> tuple[str, ...]:
    notes = []
    if shape.first is not None:
        follows = f"so the result is {result}" if result is not None else "and enlarged from that"
        notes.append(f"Because of {shape.first}, the input was first resized to {shape.source}, {follows}.")
    if shape.by:
        notes.append(f"{' and '.join(shape.by)} may change the size of the result, which is not known in advance.")
    return tuple(notes)


def _reach(model: Model, scaled_by: str, source: Size, size: Size, mode: ResizeMode) -> tuple[float, tuple[str, ...]]:
    ratios = (size.width / source.width, size.height / source.height)
    wanted = min(ratios) if mode in ("pad", "fit") else max(ratios)
    factor = math.ceil(max(wanted, 1.0) * _PLACES) / _PLACES
    most = model.params[scaled_by].max
    if most is not None and factor > most:
        raise OutOfReach(
            "size",
            f"'size' {size} is {wanted:.1f} times the image's {source}; {model.id} enlarges at most {most:g} times, "
            f"to {scaled(source, most)}.",
            "invalid_value",
        )
    notes = (
        (f"The size {size} is smaller than the image ({source}): it was enhanced at factor 1 and then reduced.",)
        if wanted < 1
        else ()
    )
    return factor, notes
