"""Turns a provider's result into the requested images.

A result that is not an image is the provider's error. An image of an unexpected size is resized if that does not
distort it, and delivered with a warning. If the gateway itself cannot process an image, it is delivered unprocessed,
because it is paid for.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

from gateway.imaging.pool import BadImage, ImagePool
from gateway.imaging.processes import LimitExceeded
from gateway.jobs.context import Recorder
from gateway.jobs.received import Received
from gateway.ledger.records import AttemptRow, OutputSpec, StoredImage
from gateway.telemetry import metrics
from gateway.telemetry.logs import event
from normalization.images import transform
from normalization.images.fitting import resize_notes
from normalization.images.formats.png import can_hold_its_pixels
from normalization.values import Image, JoinAlpha, Resize, Size, Step, Transcode
from providers.base import Outcome
from providers.errors import Undecodable

Keep = Callable[[Image], Awaitable["str | None"]]
"""Stores an image; returns its file name, None if that failed."""

_LEFT_OUT = (
    "This image was processed by an older version of Darkroom, which does not support the step {} and skipped it."
)
# A decoder's error codes for bytes that are not a complete image, even if they look like one.
_BROKEN = frozenset({"empty_image", "not_an_image", "truncated_image", "corrupt_image"})


@dataclass(frozen=True, slots=True)
class ProcessedImage:
    """The processed images of one call. Those without a file are not stored yet."""

    images: tuple[StoredImage, ...] = ()
    notes: tuple[str, ...] = ()


async def make(
    outcome: Outcome, attempt: AttemptRow, recorder: Recorder, imaging: ImagePool, received: Received, keep: Keep
) -> ProcessedImage:
    """Process a call's images and store them. Raises Undecodable.

    The unprocessed result is stored first, unless the provider can return it again and no processing is needed.
    """
    making, once = attempt.making, recorder.is_held(attempt.id)

    async def receive(*, away: bool = False) -> None:
        if await received.put(attempt.id, outcome, away=away):
            recorder.received(attempt.id)

    if once:
        await receive()
    try:
        came = await recognise(imaging, outcome, making, recorder.owner)
        if not (once or is_finished(came, making)):
            await receive()
        done, notes = await finish(imaging, came, making, outcome.notes, recorder.owner)
    except Undecodable:
        # A process that resumes the job has to ask the provider again.
        await received.forget([attempt.id])
        raise
    made = tuple([StoredImage(image=image, file=await keep(image), seed=making.seed) for image in done])
    if not (once or all(one.file for one in made)):
        await receive(away=True)
    return ProcessedImage(made, notes)


async def recognise(imaging: ImagePool, outcome: Outcome, making: OutputSpec, owner: str = "") -> list[Image]:
    """The unprocessed images of one call. Raises Undecodable if they are not usable."""
    if len(outcome.images) < making.pictures_per_call:
        raise Undecodable(f"the provider returned {len(outcome.images)} of {making.pictures_per_call} requested images")
    found = []
    for data in outcome.images[: making.pictures_per_call]:
        try:
            image = await imaging.recognise(data, owner)
        except BadImage as error:
            raise _undecodable(error) from error
        refuse_no_pixels(image)
        refuse_a_pixel(image, making.output)
        found.append(image)
    return found


def is_finished(came: list[Image], making: OutputSpec) -> bool:
    """Whether none of these images needs processing."""
    return all(
        not (fitted := fit(image, making)).notes and transform.is_finished(image.data, image.header, fitted.steps)
        for image in came
    )


async def finish(
    imaging: ImagePool, came: list[Image], making: OutputSpec, notes: tuple[str, ...] = (), owner: str = ""
) -> tuple[list[Image], tuple[str, ...]]:
    """The processed images of one call, with notes on what was lost. Raises Undecodable for an incomplete image.

    `notes` are the notes that exist already.
    """
    finished = []
    told = dict.fromkeys((*notes, *(_LEFT_OUT.format(step) for step in making.left_out)))
    for image in came:
        fitted = fit(image, making)
        planned = making.output is not None and _is_planned(image, making.output)
        done, said = await _finished(imaging, image, replace(making, finish=fitted.steps), planned, owner)
        _count(image, done)
        told.update(dict.fromkeys((*fitted.notes, *said)))
        finished.append(done)
    return finished, tuple(told)


async def _finished(
    imaging: ImagePool, came: Image, making: OutputSpec, planned: bool, owner: str
) -> tuple[Image, tuple[str, ...]]:
    try:
        return await imaging.finish(came.data, came.header, making.finish, planned=planned, owner=owner)
    except LimitExceeded as error:
        reason = error.message
    except BadImage as error:
        if error.code in _BROKEN:
            raise _undecodable(error) from error
        reason = error.message
    except Exception as error:  # noqa: BLE001 - whatever fails here, the image is paid for
        event("result.crashed", logging.ERROR, exc_info=True)
        reason = f"An internal error occurred in the gateway ({type(error).__name__})."
    event("result.as_it_came", logging.ERROR, reason=reason, format=came.format, size=f"{came.width}x{came.height}")
    return came, (_as_it_came(came, making, reason),)


def _as_it_came(came: Image, making: OutputSpec, reason: str) -> str:
    formats = [step.format for step in making.finish if isinstance(step, Transcode)]
    sizes = [str(step.size) for step in making.finish if isinstance(step, Resize)]
    wanted = [*formats[-1:], *sizes[-1:]]
    aim = f" The requested output was {', '.join(wanted)}." if wanted else ""
    aim += " The image's transparency was lost." if _joins(making.finish) else ""
    made = f"{came.format}, {came.width}x{came.height}"
    return f"The image is delivered as the provider made it ({made}): it could not be processed here. {reason}{aim}"


def refuse_no_pixels(image: Image) -> None:
    """Raise Undecodable for a result that declares far more pixels than its bytes can contain.

    If it declares more than the decoding limit, no later step would notice that it is incomplete.
    """
    if image.format == "png" and not can_hold_its_pixels(image.data):
        raise Undecodable(f"the result declares {image.width}x{image.height} pixels but does not contain them")


def refuse_a_pixel(image: Image, expected: Size | None) -> None:
    """Raise Undecodable for an unexpected single pixel: some providers return one in place of an image."""
    if image.width == 1 and image.height == 1 and expected != Size(width=1, height=1):
        raise Undecodable("the result is a single pixel")


@dataclass(frozen=True, slots=True)
class FittedImage:
    """The processing steps for a result of its actual size, and notes on them."""

    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()


def fit(image: Image, making: OutputSpec) -> FittedImage:
    """The processing steps for a result, by its actual size.

    A size within a model's usual rounding is processed as planned. A result of the planned aspect ratio is resized to
    the planned size. One of another aspect ratio is resized to the size that the client requested, if any, in the
    requested mode; else it keeps its size: stretching would distort it, and it is not bought again.
    """
    expected, steps = making.output, making.finish
    if expected is None or _rounded(image, expected):
        return FittedImage(steps)
    here = f"The provider returned {image.width}x{image.height} pixels instead of the expected {expected}"
    if _alike(Size(width=image.width, height=image.height), expected):
        if any(isinstance(step, Resize) for step in steps):
            return FittedImage(steps, (f"{here}: the image was resized.",))
        first = 1 if _joins(steps[:1]) else 0
        resized = (*steps[:first], Resize(size=expected, mode="stretch"), *steps[first:])
        return FittedImage(resized, (f"{here}: the image was resized to the expected size.",))
    left = tuple(_unstretched(step, expected) for step in steps if not isinstance(step, JoinAlpha))
    lost = " The original image's transparency does not fit the result and was lost." if _joins(steps) else ""
    sizes = [step for step in left if isinstance(step, Resize)]
    # The plan's notes are about the planned aspect ratio, so they are replaced.
    told = tuple(note for step in sizes for note in resize_notes(Size(width=image.width, height=image.height), step))
    kept = "" if sizes else ": the image was not stretched"
    return FittedImage(left, (f"{here}, which is another aspect ratio{kept}.{lost}", *told))


def _unstretched(step: Step, expected: Size) -> Step:
    """A step for another aspect ratio: a stretch that only rounded the planned size becomes a fit to that size."""
    if isinstance(step, Resize) and step.mode == "stretch" and _alike(step.size, expected):
        return Resize(size=step.size, mode="fit")
    return step


def _joins(steps: Iterable[Step]) -> bool:
    return any(isinstance(step, JoinAlpha) for step in steps)


def _rounded(image: Image, expected: Size) -> bool:
    """Diffusion models work in blocks of 8 pixels and round to them, up to 64 at the coarsest."""
    sides = ((image.width, expected.width), (image.height, expected.height))
    return all(abs(got - wanted) <= max(8, 0.02 * wanted) for got, wanted in sides)


def _is_planned(image: Image, expected: Size) -> bool:
    """Whether the image has no more pixels than were checked before it was bought: a provider may send more."""
    return _rounded(image, expected) or image.width * image.height <= expected.pixels


def _alike(one: Size, other: Size) -> bool:
    """Whether two aspect ratios differ by no more than a hundredth, or by a pixel's rounding."""
    across, down = one.width * other.height, one.height * other.width
    return abs(across - down) <= max(0.01 * max(across, down), other.width, other.height)


def _undecodable(error: BadImage) -> Undecodable:
    return Undecodable(f"the result is not a usable image: {error.message}")


def _count(came: Image, done: Image) -> None:
    if came.format != done.format:
        metrics.EMULATIONS.labels("transcode").inc()
    if (came.width, came.height) != (done.width, done.height):
        metrics.EMULATIONS.labels("resize").inc()
