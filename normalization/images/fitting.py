"""How an image of one aspect ratio meets a size of another, and what the client is told about it. No pixels here."""

from __future__ import annotations

from normalization.values import Resize, Size

_TELLS_FIT = "size_mode=fit keeps the whole picture as it is, inside the size."


def fitted(picture: Size, box: Size) -> Size:
    """The largest size of the picture's aspect ratio inside `box`, in whole pixels, at least one a side."""
    if picture.width * box.height >= picture.height * box.width:
        return Size(width=box.width, height=max(1, _rounded(picture.height * box.width, picture.width)))
    return Size(width=max(1, _rounded(picture.width * box.height, picture.height)), height=box.height)


def result_of(picture: Size, step: Resize) -> Size:
    """The size that a step gives a picture of this size."""
    return fitted(picture, step.size) if step.mode == "fit" else step.size


def told(picture: Size, step: Resize) -> tuple[str, ...]:
    """What a step does to a picture of another aspect ratio than its own: a sentence, with figures in its pixels.

    Nothing where the two differ by no more than the rounding to whole pixels, and nothing of `fit`, which changes none.
    """
    size = step.size
    covering = _covering(picture, size)
    across, down = covering.width - size.width, covering.height - size.height
    # A pixel of the smaller of the two, the picture or the size, is what rounding may have made.
    pixel = max(1, round(covering.width / picture.width))
    if step.mode == "fit" or max(across, down) <= pixel:
        return ()
    head = f"The size {size} has another aspect ratio than the picture"
    if step.mode == "stretch":
        wider = picture.width * size.height / (picture.height * size.width)
        ratio = max(wider, 1 / wider)
        more, less = ("height", "width") if across else ("width", "height")
        return (f"{head}: it was distorted, the {more} by {_percent(ratio)} % more than the {less}. {_TELLS_FIT}",)
    if step.mode == "crop":
        return (f"{head}: of {covering}, {_margins(across, down)} were cut off. {_TELLS_FIT}",)
    inner = fitted(picture, size)
    margins = _margins(size.width - inner.width, size.height - inner.height)
    return (f"{head}: it takes {inner} of it, and {margins} were filled. size_mode=fit adds nothing to the picture.",)


def _covering(picture: Size, size: Size) -> Size:
    """The smallest size of the picture's aspect ratio that leaves nothing of `size` free."""
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
    """A quotient of whole numbers to the nearest one; halves go up."""
    return (2 * numerator + denominator) // (2 * denominator)
