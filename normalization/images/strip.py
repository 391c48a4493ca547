"""Metadata taken out of a file without touching its pixels."""

from __future__ import annotations

from dataclasses import replace

from normalization.images.sniff import scan, sniff
from normalization.values import Image


def strip(image: Image) -> Image:
    """The same picture without EXIF, XMP, IPTC, comments, text, timestamps and bytes behind its end.

    The pixel data stays byte for byte, and so does all that it needs to be read (palette, transparency, profile). The
    very same object comes back where there is nothing to remove. In AVIF the metadata is blanked in place, as its
    offsets count from the beginning of the file.

    Raises ValueError for a picture that its metadata turns (an orientation other than 1), as it would be seen to lie on
    its side afterwards, and BadImage where the bytes are not what the header says.
    """
    if not image.header.metadata:
        return image
    if image.header.orientation != 1:
        raise ValueError(f"a picture of orientation {image.header.orientation} cannot lose its metadata")
    found = scan(image.data)
    data = b"".join(found.parts)
    header = replace(found.header, metadata=False, extra_pictures=False)
    if header.density is not None:
        # It may have stood in the EXIF alone.
        header = replace(header, density=sniff(data).density)
    return Image(data=data, header=header)
