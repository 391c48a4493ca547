"""Fits an image into a size of another aspect ratio, and words the notes about it. Arithmetic only, no pixels."""

from __future__ import annotations

from normalization.values import Resize, Size

_FIT_HINT = "Use size_mode=fit to keep the whole image undistorted, inside the size."


def fitted(picture: Size, box: Size) -> Size:
    """The largest size with the image's aspect ratio inside `box`, in whole pixels, at least one per side."""
    if picture.width * box.height >= picture.height * box.width:
        return Size(width=box.width, height=max(1, _rounded(picture.height * box.width, picture.width)))
    return Size(width=max(1, _rounded(picture.width * box.height, picture.height)), height=box.height)


def result_of(picture: Size, step: Resize) -> Size:
    """The size of an image of this size after the step."""
    return fitted(picture, step.size) if step.mode == "fit" else step.size


def resize_notes(picture: Size, step: Resize) -> tuple[str, ...]:
    """A sentence on how a step changes an image of another aspect ratio, with pixel figures.

    Empty if the aspect ratios differ by no more than rounding, and for `fit`, which changes nothing.
    """
    size = step.size
    covering = _covering(picture, size)
    across, down = covering.width - size.width, covering.height - size.height
    # Rounding can account for one pixel of the smaller of the two, the image or the size.
    pixel = max(1, round(covering.width / picture.width))
    if step.mode == "fit" or max(across, down) <= pixel:
        return ()
    head = f"The size {size} has a different aspect ratio than the image"
    if step.mode == "stretch":
        wider = picture.width * size.height / (picture.height * size.width)
        ratio = max(wider, 1 / wider)
        more, less = ("height", "width") if across else ("width", "height")
        return (f"{head}: it was distorted, the {more} by {_percent(ratio)} % more than the {less}. {_FIT_HINT}",)
    if step.mode == "crop":
        return (f"{head}: of {covering}, {_margins(across, down)} were cropped. {_FIT_HINT}",)
    inner = fitted(picture, size)
    margins = _margins(size.width - inner.width, size.height - inner.height)
    return (f"{head}: it covers {inner} of it, and {margins} were filled. Use size_mode=fit to add no margins.",)


def _covering(picture: Size, size: Size) -> Size:
    """The smallest size with the image's aspect ratio that covers `size`."""
    if picture.width * size.height >= picture.height * size.width:
        return Size(width=_rounded(picture.width * size.height, picture.height), height=size.height)
    return Size(width=size.width, height=_rounded(picture.height * size.width, picture.width))


def _margins(across: int, down: int) -> str:
    lost, before, after = (across, "left", "right") if across else (down, "top", "bottom")
    first = lost // 2
    return f"{first} pixels at the {before} and {lost - first} at the {after}"


def _percent(ratio: float) -> str:
    percent = 100 * (ratio - 1)
    return f"{percent:.0f}" if percent >= 10 else f"{percent:.1f}"


def _rounded(numerator: int, denominator: int) -> int:
    """A quotient rounded to the nearest integer; halves are rounded up."""
    return (2 * numerator + denominator) // (2 * denominator)
