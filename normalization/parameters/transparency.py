"""Transparency on routes that drop it, decided before the image is sent.

Most image models use three channels. An image sent to such a route has no transparency, so that the colour of an
invisible area never shows; to keep transparency, the alpha channel is enlarged here and joined to the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from normalization.parameters.schema import Model, Route
from normalization.values import OPAQUE, WHITE, Image, ImageRequest, JoinAlpha, Step, Transcode


class TransparencyUnsupported(Exception):
    """A transparent image was requested, and this route cannot deliver one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransparencyPlan:
    """How images are sent and their transparency restored. For `split` and `flatten` see `Sending`."""

    flatten: str | None = None
    split: bool = False
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()


def plan_transparency(model: Model, route: Route, request: ImageRequest, steps: Iterable[Step]) -> TransparencyPlan:
    """Plan how the transparency of a request's images is handled.

    `steps` are the finishing steps of the result. Raises TransparencyUnsupported.
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
        note = f"{route.provider} drops transparency: the image's alpha channel was enlarged by resampling."
        return TransparencyPlan(split=True, steps=(JoinAlpha(),), notes=(note,))
    if request.params.get("background") == "transparent":
        raise TransparencyUnsupported
    note = (
        f"Transparent areas were flattened onto {WHITE} before the image was sent: {route.provider} drops transparency."
    )
    return TransparencyPlan(flatten=WHITE, notes=(note,))


def images(request: ImageRequest) -> Sequence[Image]:
    """All images of a request: the input images and those in parameters."""
    return (*request.images, *(value for value in request.params.values() if isinstance(value, Image)))
