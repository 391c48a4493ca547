"""What a picture holds that 8-bit sRGB without metadata cannot: told to the caller, once for each loss."""

from __future__ import annotations

from normalization.values import Header

_CURVES = {"pq": "PQ", "hlg": "HLG"}


def losses(header: Header) -> tuple[str, ...]:
    """Sentences for what is lost when the picture is decoded to 8-bit sRGB. Movement is not among them."""
    return tuple(_told(header))


def _told(header: Header) -> list[str]:
    found = []
    if header.hdr is not None:
        found.append(
            f"HDR ({_CURVES[header.hdr]}) was tone-mapped to sRGB with its reference white at 203 nits: "
            "what is brighter than white was compressed."
        )
    elif header.cmyk:
        found.append("The colours were converted from CMYK to sRGB.")
    elif header.profile:
        found.append("The colours were converted to sRGB from another colour space.")
    if header.bits > 8:
        found.append(f"The samples were reduced from {header.bits} to 8 bits.")
    if header.extra_pictures:
        found.append("Only the main picture was kept: the file holds further pictures or a gain map.")
    return found
