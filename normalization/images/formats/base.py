"""Shared by the parsers of all formats: their exception, the result of a scan, and the limit on parts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from normalization.values import Header

# A 50 MB image in the smallest usual parts (8 KiB, libpng's default) has about 6,400; a file of a million empty parts
# is an attack on its parser.
MAX_PARTS = 100_000


# The first bytes of images that are appended to others: JPEG, PNG, GIF, WebP, AVIF or HEIC.
_PICTURE = re.compile(
    rb"\xff\xd8\xff[\xc0-\xef]|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|ftyp(?:avi[fs]|hei[cx]|mif1|msf1)", re.DOTALL
)
# Programs leave at most a few kilobytes between two images, and data that is dropped anyway is not worth more time.
_SEARCHED_BYTES = 64 << 10


# Advice for the sender of the file.
WHOLE, SAVE_AGAIN = "Send the whole file.", "Save it again in an image editor."


class BadImage(Exception):
    """The bytes are not an image that can be processed.

    `code` is one of `empty_image`, `not_an_image`, `truncated_image`, `animated_image`, `image_too_large` and
    `corrupt_image`. `message` is one or two sentences that continue `Invalid image file: `, for clients' and providers'
    files alike; `advice` tells the sender of the file what would work, if anything.
    """

    def __init__(self, code: str, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.advice = advice

    @property
    def told(self) -> str:
        """The message followed by the advice, for the sender of the file."""
        return f"{self.message} {self.advice}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The parsed structure of an image file.

    `icc` is the ICC profile of the samples, None if they are already sRGB. `primaries` are those of an HDR image, as
    their code point in H.273. `parts` are pieces that, joined, form the same file without its metadata; the pixel data
    in them is unchanged. `unended` means that the end marker was missing, so the pixel data may be incomplete, which
    only decoding can show; the marker is then the last of the `parts`.
    """

    header: Header
    icc: bytes | None
    parts: tuple[bytes | memoryview, ...]
    primaries: int = 1
    unended: bool = False


def begins_picture(data: bytes, at: int) -> bool:
    """Whether another image begins within the bytes after the end of an image."""
    return _PICTURE.search(data, at, at + _SEARCHED_BYTES) is not None


def truncated(name: str) -> BadImage:
    """Return the error for a file that ends before its structure does."""
    return BadImage("truncated_image", f"The {name} file is cut off before its end.", WHOLE)


def corrupt(name: str, what: str) -> BadImage:
    """Return the error for a file that violates its format; `what` continues `The PNG file is damaged: `."""
    return BadImage("corrupt_image", f"The {name} file is damaged: {what}.", SAVE_AGAIN)


def too_many_parts(name: str) -> BadImage:
    """Return the error for a file with more parts than any program writes."""
    return corrupt(name, f"it is divided into more than {MAX_PARTS:,} parts")
