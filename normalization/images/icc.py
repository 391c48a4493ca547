"""ICC profiles without a colour engine: detecting sRGB, and building a profile from primaries and a curve."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from normalization.values import Hdr

Triple: TypeAlias = tuple[float, float, float]
Point: TypeAlias = tuple[float, float]

# The largest accepted profile. Printer profiles reach 2 MB; screen profiles have 500 bytes to 4 KB.
MAX_BYTES = 4 * 1024 * 1024

D65: Point = (0.3127, 0.3290)
SRGB: tuple[Point, Point, Point] = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
# Colour primaries by their code point in ITU-T H.273, as PNG's cICP and AVIF's nclx write them; all with white D65.
PRIMARIES: Mapping[int, tuple[Point, Point, Point]] = {
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060)),
    6: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
# Transfer curves that are a plain power, by code point. Video curves (1, 6, 14, 15) are shown as sRGB by viewers.
POWERS: Mapping[int, float] = {4: 2.2, 5: 2.8, 8: 1.0}
# Transfer curves whose white is below their brightest (ITU-R BT.2100), by code point.
HDR: Mapping[int, Hdr] = {16: "pq", 18: "hlg"}
_SRGB_LIKE = frozenset({1, 2, 6, 13, 14, 15})

# sRGB's colorants adapted to D50, as profiles hold them, and its curve at three places.
_COLORANTS: Mapping[bytes, Triple] = {
    b"rXYZ": (0.4361, 0.2225, 0.0139),
    b"gXYZ": (0.3851, 0.7169, 0.0971),
    b"bXYZ": (0.1431, 0.0606, 0.7141),
}
_CURVES = (b"rTRC", b"gTRC", b"bTRC")
_MATRIX = {*_COLORANTS, *_CURVES}
_CURVE = ((0.1, 0.01002), (0.5, 0.21404), (0.8, 0.60383))
# Profiles round to 1/65536 and tables have as few as 32 entries; the nearest other curve (gamma 2.2) is 0.008 away.
_TOLERANCE = 0.003
_D50: Triple = (0.9642, 1.0, 0.8249)
_BRADFORD: tuple[Triple, Triple, Triple] = (
    (0.8951, 0.2664, -0.1614),
    (-0.7502, 1.7135, 0.0367),
    (0.0389, -0.0685, 1.0296),
)


def is_srgb(profile: bytes) -> bool:
    """Whether a profile is sRGB: by colorants and curves, or by its name if it has only tables.

    The name alone is not reliable: there are linear profiles called `sRGB-…-g10` and sRGB ones called `c2`.
    """
    if profile[16:20] != b"RGB " or len(profile) > MAX_BYTES:
        return False
    try:
        tags = _tags(profile)
        if not tags.keys() >= _MATRIX:
            return _named_srgb(tags.get(b"desc", b""))
        for kind, expected in _COLORANTS.items():
            found = [value / 65536 for value in struct.unpack_from(">3i", tags[kind], 8)]
            if any(abs(a - b) > _TOLERANCE for a, b in zip(found, expected, strict=True)):
                return False
        return all(abs(_evaluate(tags[kind], x) - y) <= _TOLERANCE for kind in _CURVES for x, y in _CURVE)
    except (struct.error, ArithmeticError, IndexError, ValueError):
        return False


def from_code_points(primaries: int, transfer: int) -> tuple[bool, bytes | None]:
    """Whether H.273 code points mean sRGB, and otherwise a profile for them.

    The profile is also None for HDR curves (PQ, HLG), which a profile cannot map to the range of a screen.
    """
    if primaries in (1, 2) and transfer in _SRGB_LIKE:
        return True, None
    gamma = POWERS.get(transfer)
    if gamma is None and transfer not in _SRGB_LIKE:
        return False, None
    return False, build(PRIMARIES.get(primaries, SRGB), D65, gamma)


def build(primaries: Sequence[Point], white: Point, gamma: float | None) -> bytes | None:
    """A display profile of x, y chromaticities and a power curve (None: sRGB's curve); None for invalid values.

    Values in a file can be anything: a zero y or three collinear primaries have no matrix.
    """
    try:
        colorants = _adapted(primaries, white)
        curve = (
            struct.pack(">4s4xHxx5i", b"para", 3, *map(_fixed, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)))
            if gamma is None
            else struct.pack(">4s4xHxxi", b"para", 0, _fixed(gamma))
        )
        points = [struct.pack(">4s4x3i", b"XYZ ", *map(_fixed, point)) for point in (*colorants, _D50)]
    except (ArithmeticError, struct.error):
        return None
    return _assemble(dict(zip((b"rXYZ", b"gXYZ", b"bXYZ", b"wtpt"), points, strict=True)), curve)


def conversion(primaries: Sequence[Point]) -> list[Triple]:
    """The rows of the matrix that converts linear light from primaries with white D65 to sRGB's."""
    back = _inverse(_transposed(_adapted(SRGB, D65)))
    columns = [_times(back, colorant) for colorant in _adapted(primaries, D65)]
    return _transposed(columns)


def _assemble(points: Mapping[bytes, bytes], curve: bytes) -> bytes:
    entries = {**points, b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    at = 128 + 4 + 12 * len(entries)
    table, body = struct.pack(">I", len(entries)), b""
    for kind, value in entries.items():
        table += struct.pack(">4sII", kind, at + len(body), len(value))
        body += value
    size = 128 + len(table) + len(body)
    head = struct.pack(">I4xI4s4s4s12x4s", size, 0x04200000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return head.ljust(68, b"\0") + struct.pack(">3i", *map(_fixed, _D50)) + bytes(48) + table + body


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    tags: dict[bytes, bytes] = {}
    for index in range(min(count, 100)):
        kind, at, size = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        # Only these are copied: many other tags could each claim the whole profile.
        if kind in _MATRIX or kind == b"desc":
            tags.setdefault(kind, profile[at : at + size])
    return tags


def _named_srgb(description: bytes) -> bool:
    return b"sRGB" in description or "sRGB".encode("utf-16-be") in description


def _evaluate(curve: bytes, x: float) -> float:
    """A `curv` or `para` element at x, both 0 to 1. Raises ValueError for another kind.

    `math.pow` instead of `**`, which returns a complex number for a negative base.
    """
    kind = curve[:4]
    if kind == b"curv":
        (count,) = struct.unpack_from(">I", curve, 8)
        if count == 0:
            return x
        if count == 1:
            return math.pow(x, struct.unpack_from(">H", curve, 12)[0] / 256)
        place = x * (count - 1)
        low = min(int(place), count - 2)
        first, second = struct.unpack_from(">2H", curve, 12 + 2 * low)
        return float((first + (second - first) * (place - low)) / 65535)
    if kind == b"para":
        (function,) = struct.unpack_from(">H", curve, 8)
        count = (1, 3, 4, 5, 7)[function]
        g, a, b, c, d, e, f = ([v / 65536 for v in struct.unpack_from(f">{count}i", curve, 12)] + [0.0] * 6)[:7]
        if function == 0:
            return math.pow(x, g)
        if function < 3:
            return float(math.pow(a * x + b, g) + c) if x >= -b / a else float(c)
        return float(math.pow(a * x + b, g) + e) if x >= d else float(c * x + f)
    raise ValueError("not a curve")


def _adapted(primaries: Sequence[Point], white: Point) -> list[Triple]:
    """The three colorants as XYZ, adapted from their white to D50 (Bradford)."""
    columns = [(x / y, 1.0, (1 - x - y) / y) for x, y in primaries]
    target = (white[0] / white[1], 1.0, (1 - white[0] - white[1]) / white[1])
    weights = _times(_inverse(_transposed(columns)), target)
    here, there = _times(_BRADFORD, target), _times(_BRADFORD, _D50)
    back = _inverse(_BRADFORD)
    adapted = []
    for column, weight in zip(columns, weights, strict=True):
        r, g, b = _times(_BRADFORD, (column[0] * weight, column[1] * weight, column[2] * weight))
        adapted.append(_times(back, (r * there[0] / here[0], g * there[1] / here[1], b * there[2] / here[2])))
    return adapted


def _transposed(rows: Sequence[Triple]) -> list[Triple]:
    return [(rows[0][i], rows[1][i], rows[2][i]) for i in range(3)]


def _times(matrix: Sequence[Triple], vector: Triple) -> Triple:
    r, g, b = (sum(m * v for m, v in zip(row, vector, strict=True)) for row in matrix)
    return r, g, b


def _inverse(m: Sequence[Triple]) -> list[Triple]:
    """The inverse by cofactors. Raises ZeroDivisionError if there is none."""
    (a, b, c), (d, e, f), (g, h, i) = m
    first, second, third = e * i - f * h, f * g - d * i, d * h - e * g
    k = 1 / (a * first + b * second + c * third)
    return [
        (first * k, (c * h - b * i) * k, (b * f - c * e) * k),
        (second * k, (a * i - c * g) * k, (c * d - a * f) * k),
        (third * k, (b * g - a * h) * k, (a * e - b * d) * k),
    ]


def _fixed(value: float) -> int:
    return round(value * 65536)
