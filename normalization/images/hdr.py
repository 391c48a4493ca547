"""Tone-maps HDR images (ITU-R BT.2100: PQ and HLG) to sRGB, as a screen shows them next to SDR images.

A sample becomes linear light with its reference white, 203 cd/m² (ITU-R BT.2408), at 1.0: PQ by the EOTF of SMPTE
ST 2084; HLG by its inverse OETF and the OOTF of a display of 1000 cd/m² (gamma 1.2), where 75 % is that same white.
Then the primaries are converted to sRGB's, colours outside them are clipped, and values above `KNEE` are compressed
into the range below 1.0. The largest channel is compressed and the others are scaled with it, so that a highlight keeps
its hue. Below the knee an HDR image looks as it would in sRGB.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageMath

from normalization.images import icc
from normalization.images.icc import Triple
from normalization.values import Hdr

WHITE_NITS, HLG_PEAK_NITS, HLG_GAMMA = 203.0, 1000.0, 1.2
# In linear light. Above it, an exponential continues the straight line smoothly and approaches 1.0.
KNEE = 0.9
_ROOM = 1 - KNEE
# Of SMPTE ST 2084 (PQ), and of ARIB STD-B67 (HLG).
_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073
_BT2020 = 9
_LUMA: Triple = (0.2627, 0.6780, 0.0593)
# Bounds memory: a float takes four bytes, and about a dozen images of floats exist at once.
_STRIP_PIXELS = 1 << 18
_STEPS = 65535
_PARTS = [byte / 256 for byte in range(256)]


def tone_mapped(picture: Image.Image, hdr: Hdr, primaries: int, low: Image.Image | None = None) -> Image.Image:
    """An image in mode L, LA, RGB or RGBA converted to sRGB, in mode RGB or RGBA; alpha is unchanged.

    `primaries` is their code point in H.273. `low` has the low bytes of 16-bit samples, whose high bytes are
    `picture`; without it the samples have 8 bits.
    """
    alpha = picture.getchannel("A") if picture.mode in ("LA", "RGBA") else None
    high, rows = picture.convert("RGB"), rows_of(primaries)
    low = None if low is None else low.convert("RGB")
    done = Image.new("RGB", high.size)
    height = max(1, _STRIP_PIXELS // high.width)
    for top in range(0, high.height, height):
        box = (0, top, high.width, min(top + height, high.height))
        done.paste(_strip(high.crop(box), low and low.crop(box), hdr, rows), box)
    if alpha is not None:
        done.putalpha(alpha)
    return done


def rows_of(primaries: int) -> list[Triple]:
    """The matrix from primaries, by code point, to sRGB's. Unknown ones count as BT.2020, the usual ones of HDR."""
    if primaries == 1:
        return icc.conversion(icc.SRGB)
    return icc.conversion(icc.PRIMARIES.get(primaries, icc.PRIMARIES[_BT2020]))


def _strip(high: Image.Image, low: Image.Image | None, hdr: Hdr, rows: Sequence[Triple]) -> Image.Image:
    curve = _curve(hdr, 255.0 if low is None else 65535 / 256)
    operands = {name: band.point(curve[:256], "F") for name, band in zip("rgb", high.split(), strict=True)}
    if low is not None:
        # Interpolate between the curve at the high byte and at the next one.
        operands |= {f"{name}_next": band.point(curve[1:], "F") for name, band in zip("rgb", high.split(), strict=True)}
        operands |= {f"{name}_part": band.point(_PARTS, "F") for name, band in zip("rgb", low.split(), strict=True)}
    table = _coded()
    shown: list[Image.Image] = []

    def compute(operands: dict[str, Any]) -> Any:
        light = [_between(operands, name) for name in "rgb"]
        screen = _screen(light, hdr, rows, operands)
        shown.extend(operands["int"](channel * _STEPS + 0.5).im.point(table, "L") for channel in screen)
        return light[0]

    ImageMath.lambda_eval(compute, **operands)
    return Image.merge("RGB", shown)


def _between(operands: dict[str, Any], name: str) -> Any:
    light = operands[name]
    if f"{name}_part" in operands:
        light = light + (operands[f"{name}_next"] - light) * operands[f"{name}_part"]
    return light


def _screen(light: list[Any], hdr: Hdr, rows: Sequence[Triple], operands: dict[str, Any]) -> list[Any]:
    """Linear light in sRGB's primaries, 0 to 1, from other primaries. The operands are images or numbers."""
    least, most = operands["min"], operands["max"]
    if hdr == "hlg":
        luma = most(_dot(_LUMA, light), 0.0)
        gain = luma ** (HLG_GAMMA - 1) * (HLG_PEAK_NITS / WHITE_NITS)
        light = [channel * gain for channel in light]
    light = [most(_dot(row, light), 0.0) for row in rows]
    brightest = most(most(light[0], light[1]), light[2])
    above = most(brightest, KNEE)
    scale = (1 - math.e ** ((above * -1 + KNEE) / _ROOM) * _ROOM) / above
    # Below the knee the scale is 1.0, because numerator and denominator are both the knee.
    return [least(channel * scale, 1.0) for channel in light]


def _dot(weights: Triple, values: list[Any]) -> Any:
    return values[0] * weights[0] + values[1] * weights[1] + values[2] * weights[2]


@functools.lru_cache(maxsize=4)
def _curve(hdr: Hdr, most: float) -> list[float]:
    """Linear light for each byte of a sample, of which `most` is the largest, and for one more byte."""
    light = _pq if hdr == "pq" else _hlg
    return [light(min(1.0, byte / most)) for byte in range(257)]


def _pq(signal: float) -> float:
    """Light in units of the reference white."""
    power = math.pow(signal, 1 / _M2)
    return math.pow(max(power - _C1, 0.0) / (_C2 - _C3 * power), 1 / _M1) * 10_000 / WHITE_NITS


def _hlg(signal: float) -> float:
    """Light of the scene, 0 to 1."""
    return signal * signal / 3 if signal <= 0.5 else (math.exp((signal - _C) / _A) + _B) / 12


@functools.lru_cache(maxsize=1)
def _coded() -> list[int]:
    """sRGB's bytes by linear light in `_STEPS` steps."""
    return [round(255 * _srgb(step / _STEPS)) for step in range(65536)]


def _srgb(light: float) -> float:
    return 12.92 * light if light <= 0.0031308 else 1.055 * math.pow(light, 1 / 2.4) - 0.055
