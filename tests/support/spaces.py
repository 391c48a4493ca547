"""Colour spaces by their published numbers, and how a file says which one its samples are in.

Nothing here is the gateway's but the writer of ICC profiles, whose results ImageCms and every viewer read: what a
sample looks like is computed from the standards' formulas, in floats.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from normalization.images import icc
from tests.support.pictures import DISPLAY_P3, SRGB, chunk

Colour = tuple[float, ...]
# From linear light of other primaries (all with white D65) to that of sRGB's: IEC 61966-2-1, SMPTE EG 432-1, and
# Adobe RGB (1998).
_FROM_P3 = ((1.22494, -0.22494, 0.0), (-0.04206, 1.04206, 0.0), (-0.01964, -0.07864, 1.09827))
_FROM_ADOBE = ((1.39836, -0.39836, 0.0), (0.0, 1.0, 0.0), (0.0, -0.04293, 1.04293))
_ADOBE_GAMMA = 563 / 256
_ADOBE = icc.build(((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), icc.D65, _ADOBE_GAMMA) or b""


def _from_srgb(value: float) -> float:
    return value / 12.92 if value <= 0.04045 else float(((value + 0.055) / 1.055) ** 2.4)


def _to_srgb(light: float) -> float:
    light = min(max(light, 0.0), 1.0)
    return 12.92 * light if light <= 0.0031308 else float(1.055 * light ** (1 / 2.4) - 0.055)


def _power(gamma: float) -> Callable[[float], float]:
    return lambda value: float(value**gamma)


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A colour space. `light` makes linear light of a value from 0 to 1, `matrix` sRGB's primaries of others.

    `profile` says it in any format, `chunks` in a PNG alone. `foreign` is false for what is sRGB.
    """

    name: str
    foreign: bool = True
    light: Callable[[float], float] = _from_srgb
    matrix: Sequence[Colour] | None = None
    profile: bytes | None = None
    chunks: bytes = b""

    def seen(self, colour: Colour) -> tuple[int, ...]:
        """A colour of samples from 0 to 1, as 8-bit sRGB; one sample is a grey."""
        if self.foreign:
            lit = [self.light(value) for value in colour]
            if self.matrix and len(lit) == 3:
                lit = [sum(a * b for a, b in zip(row, lit, strict=True)) for row in self.matrix]
            colour = tuple(map(_to_srgb, lit))
        return tuple(round(255 * value) for value in colour)


def _iccp(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"a name\0\0" + zlib.compress(profile))


def _gama(gamma: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(100_000 / gamma)))


PLAIN = Space(name="unsaid", foreign=False)
# What every format can say.
PROFILES = (
    PLAIN,
    Space(name="sRGB", foreign=False, profile=SRGB),
    Space(name="Display P3", matrix=_FROM_P3, profile=DISPLAY_P3),
    Space(name="Adobe RGB", matrix=_FROM_ADOBE, light=_power(_ADOBE_GAMMA), profile=_ADOBE),
)
# What a PNG can say of grey samples, and of all.
GREYS = (
    PLAIN,
    Space(name="the chunk sRGB", foreign=False, chunks=chunk(b"sRGB", b"\0")),
    Space(name="gAMA 1.8", light=_power(1.8), chunks=_gama(1.8)),
    Space(name="gAMA 1.0", light=_power(1.0), chunks=_gama(1.0)),
)
CHUNKS = (
    *GREYS,
    *(Space(name=f"iCCP {one.name}", foreign=one.foreign, light=one.light, matrix=one.matrix, chunks=_iccp(one.profile))
      for one in PROFILES if one.profile),
    Space(name="cICP P3", matrix=_FROM_P3, chunks=chunk(b"cICP", bytes((12, 13, 0, 1)))),
)  # fmt: skip
