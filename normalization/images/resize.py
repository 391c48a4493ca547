"""A decoded picture brought to an exact size or onto a background."""

from __future__ import annotations

from PIL import Image

from normalization.images.transparency import WHITE
from normalization.parameters.fitting import fitted, result_of
from normalization.values import Resize, Size


def resize(picture: Image.Image, step: Resize, *, transparent: bool) -> Image.Image:
    """The picture, of mode L, RGB or RGBA, in exactly the step's size; with `fit` as large as has room in it.

    `transparent` says whether the file that is to be written can and may have transparent areas: it decides how `pad`
    fills what is left where the step names no background.
    """
    width, height = picture.size
    target = result_of(Size(width=width, height=height), step)
    if picture.size == (target.width, target.height):
        return picture
    if step.mode in ("stretch", "fit"):
        return _resampled(picture, target, (0, 0, width, height))
    if step.mode == "crop":
        scale = max(step.size.width / width, step.size.height / height)
        # Rounding may put the box a hair outside of the picture, which Pillow refuses.
        across, down = min(step.size.width / scale, width), min(step.size.height / scale, height)
        left, top = (width - across) / 2, (height - down) / 2
        return _resampled(picture, step.size, (left, top, left + across, top + down))
    inner = fitted(Size(width=width, height=height), step.size)
    small = _resampled(picture, inner, (0, 0, width, height))
    place = ((step.size.width - inner.width) // 2, (step.size.height - inner.height) // 2)
    return _padded(small, step, place, transparent=transparent)


def flatten(picture: Image.Image, background: str) -> Image.Image:
    """An RGBA picture on a background of one colour, `#rrggbb`, as RGB."""
    canvas = Image.new("RGB", picture.size, background)
    canvas.paste(picture, mask=picture.getchannel("A"))
    return canvas


def _padded(picture: Image.Image, step: Resize, place: tuple[int, int], *, transparent: bool) -> Image.Image:
    size = (step.size.width, step.size.height)
    if step.background is None and transparent:
        canvas = Image.new("RGBA", size, (0, 0, 0, 0))
    else:
        mode = "RGBA" if picture.mode == "RGBA" else "RGB"
        canvas = Image.new(mode, size, step.background or WHITE)
    # Pasted without a mask: the picture's own transparent areas stay transparent.
    canvas.paste(picture.convert(canvas.mode), place)
    return canvas


def _resampled(picture: Image.Image, size: Size, box: tuple[float, float, float, float]) -> Image.Image:
    """A region of the picture in the size, cut and resampled in one pass, without a shortcut that would blur.

    Pillow premultiplies alpha by itself, so that the colour of invisible pixels does not bleed into visible ones.
    """
    return picture.resize((size.width, size.height), Image.Resampling.LANCZOS, box=box, reducing_gap=None)
