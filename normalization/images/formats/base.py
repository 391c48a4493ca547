"""What the container readers share: the one exception, the result of a scan, and the limit on parts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from normalization.values import Header

# A 50 MB picture in the smallest usual parts (8 KiB, libpng's default) has about 6,400; a file of a million empty parts
# is an attack on whoever walks it.
MAX_PARTS = 100_000


# How pictures begin, as they are appended to others: a JPEG, PNG, GIF, WebP, AVIF or HEIC.
_PICTURE = re.compile(
    rb"\xff\xd8\xff[\xc0-\xef]|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|ftyp(?:avi[fs]|hei[cx]|mif1|msf1)", re.DOTALL
)
# Between two pictures programs leave at most a few kilobytes; and no more time is spent on what is dropped anyway.
_SEARCHED_BYTES = 64 << 10


# Advice to whoever sent the file.
WHOLE, SAVE_AGAIN = "Send the whole file.", "Save it again in an image editor."


class BadImage(Exception):
    """Bytes that are not a picture which we can take.

    `code` is one of `empty_image`, `not_an_image`, `truncated_image`, `animated_image`, `image_too_large` and
    `corrupt_image`. `message` is a sentence or two that reads well after `Invalid image file: `, whoever made the file;
    `advice` says to its sender what would work, where there is such a thing.
    """

    def __init__(self, code: str, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.advice = advice

    @property
    def told(self) -> str:
        """What to tell the sender of the file: the message, and the advice behind it."""
        return f"{self.message} {self.advice}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A container taken apart.

    `icc` is the ICC profile that the samples need to be read with, None where they are sRGB already. `primaries` are
    those of an HDR picture, by their code point in H.273. `parts` are the
    pieces that, joined, are the same file without its metadata; the pixel data in them is untouched. `unended` says
    that the pixels may break off, as only decoding can tell: the mark that ends them is missing, and is the last of the
    `parts`.
    """

    header: Header
    icc: bytes | None
    parts: tuple[bytes | memoryview, ...]
    primaries: int = 1
    unended: bool = False


def begins_picture(data: bytes, at: int) -> bool:
    """Whether a picture begins among the bytes behind the end of another one."""
    return _PICTURE.search(data, at, at + _SEARCHED_BYTES) is not None


def truncated(name: str) -> BadImage:
    """The file ends before its own structure says so."""
    return BadImage("truncated_image", f"The {name} file is cut off before its end.", WHOLE)


def corrupt(name: str, what: str) -> BadImage:
    """The structure contradicts the format's specification; `what` continues `The PNG file is damaged: `."""
    return BadImage("corrupt_image", f"The {name} file is damaged: {what}.", SAVE_AGAIN)


def too_many_parts(name: str) -> BadImage:
    """A structure so finely divided that no program writes it for a picture."""
    return corrupt(name, f"it is divided into more than {MAX_PARTS:,} parts")
