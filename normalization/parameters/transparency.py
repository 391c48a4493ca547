"""What becomes of transparent areas on a route that drops them: decided before the picture is sent.

Models for pictures mostly know three channels. What such a route is sent has no transparency, so that no colour of an
invisible area shows; and where the caller may keep it, the alpha channel is enlarged here and joined to the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from normalization.parameters.schema import Model, Route
from normalization.values import OPAQUE, WHITE, Image, ImageRequest, JoinAlpha, Step, Transcode


class TransparencyUnsupported(Exception):
    """A transparent picture was asked for, and this route has no way to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransparencyPlan:
    """How a route's pictures are sent, and what their results are given back. `split` and `flatten` as in `Sending`."""

    flatten: str | None = None
    split: bool = False
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()


def handled(model: Model, route: Route, request: ImageRequest, steps: Iterable[Step]) -> TransparencyPlan:
    """What is to be done about the transparency of a request's pictures.

    `steps` are how the result is finished. Raises TransparencyUnsupported.
    """
    if route.alpha == "keep" or not any(image.header.alpha for image in images(request)):
        return TransparencyPlan()
    transcode = next((step for step in steps if isinstance(step, Transcode)), None)
    colour = (transcode.background if transcode else None) or WHITE
    if transcode is not None and transcode.opaque:
        return TransparencyPlan(flatten=colour)
    if transcode is not None and transcode.format in OPAQUE:
        note = f"Transparent areas were flattened onto {colour}: {transcode.format} has no transparency."
        return TransparencyPlan(flatten=colour, notes=(note,))
    if model.scaled_by is not None and request.images[0].header.alpha:
        note = f"{route.provider} drops transparency: the picture's alpha channel was enlarged by resampling."
        return TransparencyPlan(split=True, steps=(JoinAlpha(),), notes=(note,))
    if request.params.get("background") == "transparent":
        raise TransparencyUnsupported
    note = f"Transparent areas were flattened onto {WHITE} before the picture was sent: {route.provider} drops them."
    return TransparencyPlan(flatten=WHITE, notes=(note,))


def images(request: ImageRequest) -> Sequence[Image]:
    """Every picture of a request: those to be worked on, and those in parameters."""
    return (*request.images, *(value for value in request.params.values() if isinstance(value, Image)))
