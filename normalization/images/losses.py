"""What a picture holds that 8-bit sRGB without metadata cannot: told to the caller, once for each loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from normalization.images.encode import holds_density
from normalization.values import Header, Step, Transcode

_CURVES = {"pq": "PQ", "hlg": "HLG"}
# What programs write where nobody has thought of paper: the resolutions of screens.
_SCREENS = ((72, 72), (96, 96))


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


def keeping_density(
    steps: Sequence[Step], density: tuple[float, float] | None
) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """Finishing steps that write the density of the caller's picture into the result; a sentence where they cannot."""
    last = next((step for step in reversed(steps) if isinstance(step, Transcode)), None)
    if density is None or last is None:
        return tuple(steps), ()
    if not holds_density(last.format, density):
        said = f"The density of {round(density[0], 1):g} dots per inch was lost: {last.format} files here hold none."
        return tuple(steps), () if tuple(map(round, density)) in _SCREENS else (said,)
    return tuple(replace(step, density=density) if step is last else step for step in steps), ()
