"""From what a provider gave to the pictures that were asked for."""

from __future__ import annotations

from gateway.jobs.imaging import BadImage, Imaging
from gateway.jobs.records import Making
from gateway.telemetry import metrics
from normalization.values import Image, Size
from providers.base import Outcome, Undecodable


async def finish(
    imaging: Imaging, outcome: Outcome, making: Making, owner: str = ""
) -> tuple[list[Image], tuple[str, ...]]:
    """The finished pictures of one call, with notes on what was lost. Raises Undecodable for what cannot be them."""
    if len(outcome.pictures) < making.pictures_per_call:
        raise Undecodable(f"{len(outcome.pictures)} pictures came, {making.pictures_per_call} were asked for")
    finished = []
    told = dict.fromkeys(outcome.notes)
    for data in outcome.pictures[: making.pictures_per_call]:
        try:
            image = await imaging.inspect(data, owner)
            verify(image, making.output)
            done, notes = await imaging.finish(data, image.header, making.finish, owner)
        except BadImage as error:
            raise Undecodable(f"the result is no usable picture: {error.message}") from error
        _count(image, done)
        told.update(dict.fromkeys(notes))
        finished.append(done)
    return finished, tuple(told)


def verify(image: Image, expected: Size | None) -> None:
    """Refuse a result that cannot be what was asked for: one pixel, or a size beyond a model's usual rounding."""
    if image.width == 1 and image.height == 1 and expected != Size(width=1, height=1):
        raise Undecodable("the result is a single pixel")
    if expected is None:
        return
    for got, wanted in ((image.width, expected.width), (image.height, expected.height)):
        # Diffusion models work in blocks of 8 pixels and round to them, up to 64 at the coarsest.
        if abs(got - wanted) > max(8, 0.02 * wanted):
            raise Undecodable(f"the result is {image.width}x{image.height}, expected was {expected}")


def _count(came: Image, done: Image) -> None:
    if came.format != done.format:
        metrics.EMULATIONS.labels("transcode").inc()
    if (came.width, came.height) != (done.width, done.height):
        metrics.EMULATIONS.labels("resize").inc()
