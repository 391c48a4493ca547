"""Random pictures as strangers send them, in every format, with everything that decides how they look.

They are written here from random samples, and what they look like is computed from the same samples: no reader of the
gateway's has a part in it.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from PIL import Image

from tests.support.pictures import SECRET, chunk, encoded, exif, raw_png, with_segment
from tests.support.spaces import CHUNKS, GREYS, PLAIN, PROFILES, Space

# What is done to an upright picture so that each EXIF orientation brings it back (Exif 2.32, 4.6.4 A).
_TURNED: Mapping[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_BANDS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + SECRET + b"</x:xmpmeta>"
_THUMBNAIL = b"JFIF\0\x01\x02\x01\0\x48\0\x48\x03\x02" + SECRET[:6] * 3

Sample = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """A file, and what it looks like: upright, in 8-bit sRGB, as RGBA. `story` says what is in it."""

    data: bytes
    seen: Image.Image
    story: str
    bits: int = 8
    foreign: bool = False
    cmyk: bool = False

    @property
    def transparent(self) -> bool:
        """Whether anything in it is not opaque."""
        return any(self.seen.getchannel("A").histogram()[:255])


def stranger(kind: str, seed: int) -> Stranger:
    """A picture of the kind, the same one for the same seed."""
    return KINDS[kind](random.Random(f"{kind} {seed}"))


def _smooth(draw: random.Random, size: tuple[int, int]) -> Image.Image:
    """Colours that change slowly, and are not alike in any two corners: one channel, 8 bits."""
    coarse = Image.frombytes("L", (4, 4), draw.randbytes(16))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def _size(draw: random.Random) -> tuple[int, int]:
    return draw.randrange(17, 60), draw.randrange(17, 60)


def _see(stored: Sequence[Sample], size: tuple[int, int], most: int, space: Space) -> Image.Image:
    """Samples with their alpha last, as they look."""
    known: dict[Sample, bytes] = {}
    for sample in stored:
        if sample not in known:
            *colour, alpha = sample
            found = space.seen(tuple(value / most for value in colour))
            known[sample] = bytes((*(found * 3)[:3], round(255 * alpha / most)))
    return Image.frombytes("RGBA", size, b"".join(known[sample] for sample in stored))


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    """A stored picture as it is seen: what was turned is turned back."""
    back = {6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}
    turn = back.get(orientation, _TURNED.get(orientation))
    return picture if turn is None else picture.transpose(turn)


def _packed(samples: Sequence[Sample], width: int, depth: int) -> bytes:
    """The rows of a PNG, without their filter types."""
    rows = []
    for at in range(0, len(samples), width):
        values = [value for sample in samples[at : at + width] for value in sample]
        if depth == 16:
            rows.append(struct.pack(f">{len(values)}H", *values))
            continue
        bits = "".join(f"{value:0{depth}b}" for value in values)
        rows.append(int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big"))
    return b"".join(rows)


def _png_extras(draw: random.Random, orientation: int) -> tuple[bytes, str]:
    """Metadata in a PNG: a text, a density, a damaged text that everybody passes over."""
    extra, words = b"", []
    if draw.random() < 0.5:
        words.append("text")
        extra += chunk(b"tEXt", b"Comment\0" + SECRET) + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + _XMP)
    if draw.random() < 0.3:
        words.append("pHYs")
        extra += chunk(b"pHYs", struct.pack(">IIB", 11811, 11811, 1))
    if draw.random() < 0.3:
        words.append("a damaged chunk")
        extra += chunk(b"tEXt", b"Comment\0" + SECRET)[:-1] + b"?"
    if orientation != 1 or draw.random() < 0.3:
        extra += chunk(b"eXIf", exif(orientation).tobytes().removeprefix(b"Exif\0\0"))
    return extra, ", ".join(words)


def _png(colour_type: int, depths: Sequence[int], *, keyed: bool = False) -> Callable[[random.Random], Stranger]:
    """PNGs of a colour type in one of the depths; `keyed` ones may have a transparent colour (tRNS)."""

    def written(draw: random.Random) -> Stranger:
        size, depth = _size(draw), draw.choice(depths)
        most = (1 << depth) - 1
        bands = _BANDS[colour_type]
        samples = _samples(draw, size, bands, most)
        space = draw.choice(GREYS if bands < 3 else CHUNKS)
        orientation = draw.choice((1, 1, *range(2, 9)))
        key = draw.choice(samples) if keyed and draw.random() < 0.6 else None
        stored = samples if bands in (2, 4) else [(*sample, 0 if sample == key else most) for sample in samples]
        trns = chunk(b"tRNS", struct.pack(f">{bands}H", *key)) if key else b""
        extra, words = _png_extras(draw, orientation)
        return Stranger(
            data=raw_png(size, depth, colour_type, _packed(samples, size[0], depth), space.chunks + extra + trns),
            seen=_upright(_see(stored, size, most, space), orientation),
            story=f"type {colour_type}, {depth} bits, {space.name}, turned {orientation}, key {key}, {words}",
            bits=depth,
            foreign=space.foreign,
        )

    return written


def _samples(draw: random.Random, size: tuple[int, int], bands: int, most: int) -> list[Sample]:
    """Smooth ones, up to `most`; one picture in three is dark. Of 16 bits the lower are noise, as in a scan."""
    dim = draw.choice((1.0, 1.0, 0.1)) if most > 255 else 1.0
    planes = [_smooth(draw, size).tobytes() for _ in range(bands)]
    if most <= 255:
        return [tuple(value * most // 255 for value in sample) for sample in zip(*planes, strict=True)]
    return [
        tuple(int((value << 8 | draw.randrange(256)) * dim) for value in sample) for sample in zip(*planes, strict=True)
    ]


def _palette(draw: random.Random) -> Stranger:
    size, depth = _size(draw), draw.choice((1, 2, 4, 8))
    count = 1 << depth
    indices = [(value * (count - 1) // 255,) for value in _smooth(draw, size).tobytes()]
    colours = [tuple(draw.randbytes(3)) for _ in range(count)]
    alphas = list(draw.randbytes(draw.randrange(1, count + 1))) if draw.random() < 0.6 else []
    space, orientation = draw.choice(CHUNKS), draw.choice((1, 1, *range(2, 9)))
    whole = [*alphas, *[255] * (count - len(alphas))]
    stored = [(*colours[index], whole[index]) for (index,) in indices]
    extra, words = _png_extras(draw, orientation)
    body = space.chunks + chunk(b"PLTE", bytes(value for colour in colours for value in colour))
    body += (chunk(b"tRNS", bytes(alphas)) if alphas else b"") + extra
    return Stranger(
        data=raw_png(size, depth, 3, _packed(indices, size[0], depth), body),
        seen=_upright(_see(stored, size, 255, space), orientation),
        story=f"palette of {count}, {len(alphas)} alphas, {space.name}, turned {orientation}, {words}",
        foreign=space.foreign,
    )


def _colours(draw: random.Random, *, alpha: bool = False) -> Image.Image:
    """A smooth RGB picture, or RGBA."""
    size = _size(draw)
    bands = [_smooth(draw, size) for _ in range(4 if alpha else 3)]
    if alpha and draw.random() < 0.5:
        # A logo: a shape with a sharp edge.
        bands[3] = bands[3].point([255 if value > 120 else 0 for value in range(256)])
    return Image.merge("RGBA" if alpha else "RGB", bands)


def _seen(stored: Image.Image, space: Space) -> Image.Image:
    samples = list(zip(*[iter(stored.convert("RGBA").tobytes())] * 4, strict=True))
    return _see(samples, stored.size, 255, space)


def _said(draw: random.Random, space: Space, orientation: int) -> dict[str, Any]:
    """Options of Pillow's writers: the profile, EXIF with the orientation, XMP."""
    said: dict[str, Any] = {"icc_profile": space.profile} if space.profile else {}
    if orientation != 1 or draw.random() < 0.4:
        said["exif"] = exif(orientation)
    if draw.random() < 0.4:
        said["xmp"] = _XMP
    return said


def _jpeg(draw: random.Random) -> Stranger:
    stored, grey = _colours(draw), draw.random() < 0.2
    space, orientation = PLAIN if grey else draw.choice(PROFILES), draw.choice((1, *range(1, 9)))
    data = encoded(
        stored.convert("L") if grey else stored,
        "jpeg",
        quality=draw.choice((98, 100)),
        subsampling=0,
        progressive=draw.random() < 0.3,
        **_said(draw, space, orientation),
    )
    thumbnail = draw.random() < 0.3
    if thumbnail:
        # In place of the JFIF header that was written.
        data = with_segment(data[:2] + data[20:], 0xE0, _THUMBNAIL)
    seen = _seen(stored.convert("L") if grey else stored, space)
    return Stranger(
        data=data,
        seen=_upright(seen, orientation),
        story=f"{'grey' if grey else 'RGB'}, {space.name}, turned {orientation}, thumbnail {thumbnail}",
        foreign=space.foreign,
    )


def _cmyk(draw: random.Random) -> Stranger:
    """Ink as Photoshop writes it: inverted, with as much of it in black as the colours have in common, or less."""
    stored, share, orientation = _colours(draw), draw.choice((0, 0.5)), draw.choice((1, *range(1, 9)))
    inks = []
    for red, green, blue in zip(*[iter(stored.tobytes())] * 3, strict=True):
        black = int(share * (255 - max(red, green, blue)))
        inks.append(bytes((*(255 - value * 255 // (255 - black) for value in (red, green, blue)), black)))
    picture = Image.frombytes("CMYK", stored.size, b"".join(inks))
    data = encoded(picture, "jpeg", quality=100, subsampling=0, **_said(draw, PLAIN, orientation))
    marked = draw.random() < 0.5
    if not marked:
        at = data.index(b"\xff\xee\x00\x0eAdobe")
        data = data[:at] + data[at + 16 :]
    return Stranger(
        data=data,
        seen=_upright(_seen(stored, PLAIN), orientation),
        story=f"CMYK, black {share}, Adobe's marker {marked}, turned {orientation}",
        cmyk=True,
    )


def _modern(fmt: str) -> Callable[[random.Random], Stranger]:
    """WebP and AVIF: with and without loss, alpha, profile, orientation."""

    def written(draw: random.Random) -> Stranger:
        stored = _colours(draw, alpha=draw.random() < 0.5)
        space, orientation = draw.choice(PROFILES), draw.choice((1, *range(1, 9)))
        lossless = fmt == "webp" and draw.random() < 0.5
        options: dict[str, Any] = {"lossless": True, "exact": True} if lossless else {"quality": 100}
        if fmt == "avif":
            options |= {"subsampling": "4:4:4", "speed": 8}
        data = encoded(stored, fmt, **options, **_said(draw, space, orientation))
        seen = _seen(stored, space)
        if fmt == "webp" and not lossless:
            # Its lossy form halves the colours' resolution: what is seen is what its decoder gives.
            seen = _seen(_decoded(encoded(stored, fmt, **options)), space)
        return Stranger(
            data=data,
            seen=_upright(seen, orientation),
            story=f"{fmt} {stored.mode}, lossless {lossless}, {space.name}, turned {orientation}",
            foreign=space.foreign,
        )

    return written


def _decoded(data: bytes) -> Image.Image:
    with Image.open(BytesIO(data)) as picture:
        return picture.convert("RGBA")


def _gif(draw: random.Random) -> Stranger:
    stored = _colours(draw).quantize(draw.choice((2, 16, 200)))
    key = draw.choice(stored.tobytes()) if draw.random() < 0.6 else None
    options: dict[str, Any] = {} if key is None else {"transparency": key}
    data = encoded(stored, "gif", comment=SECRET, interlace=draw.random() < 0.5, optimize=False, **options)
    seen = stored.convert("RGBA")
    if key is not None:
        shown = bytes(0 if index == key else 255 for index in stored.tobytes())
        seen.putalpha(Image.frombytes("L", stored.size, shown))
    return Stranger(data=data, seen=seen, story=f"gif, key {key}")


KINDS: Mapping[str, Callable[[random.Random], Stranger]] = {
    "png-grey": _png(0, (1, 2, 4, 8, 16), keyed=True),
    "png-rgb": _png(2, (8, 16), keyed=True),
    "png-palette": _palette,
    "png-grey-alpha": _png(4, (8, 16)),
    "png-rgba": _png(6, (8, 16)),
    "jpeg": _jpeg,
    "jpeg-cmyk": _cmyk,
    "webp": _modern("webp"),
    "avif": _modern("avif"),
    "gif": _gif,
}
