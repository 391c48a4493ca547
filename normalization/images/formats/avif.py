"""AVIF: an image as the primary item of an ISO base media file, with its properties in separate boxes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from normalization.images import icc
from normalization.images.formats import av1, bmff
from normalization.images.formats.base import BadImage, Scan, begins_picture, corrupt, truncated
from normalization.images.formats.bmff import Box, Extent, Item, Reference
from normalization.images.formats.exif import density
from normalization.values import Hdr, Header

NAME = bmff.NAME

_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
# Apple's gain map of an image, and the item that combines a gain map with an image according to ISO 21496-1.
_GAIN_MAP, _TONE_MAP = b"hdrgainmap", b"tmap"
_PICTURES = frozenset({b"av01", b"grid", b"iden", b"iovl", b"hvc1", _TONE_MAP})
_METADATA = frozenset({b"Exif", b"mime", b"uri "})
# An item type that no reader knows, so every reader ignores it.
_NOTHING = b"skip"
# Encoders may round up a frame's width and height.
_MARGIN_FACTOR, _MARGIN_PIXELS = 2, 1 << 20
_TOP_LEVEL = frozenset({b"ftyp", b"meta", b"mdat", b"moov", b"free", b"skip", b"uuid", b"moof", b"mfra", b"sidx"})
# The EXIF orientation for the quarter turns of irot (anticlockwise) and then the axis of imir (None: not mirrored).
_ORIENTATION = {
    (0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6,
    (0, 0): 4, (1, 0): 5, (2, 0): 2, (3, 0): 7,
    (0, 1): 2, (1, 1): 7, (2, 1): 4, (3, 1): 5,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Patch:
    """Bytes that overwrite the same number from `at` on: nothing moves, so all offsets in the file stay valid."""

    at: int
    new: bytes


def scan(data: bytes, lenient: bool = False) -> Scan:
    """Read the properties of an AVIF's primary item, and check that its data are complete. Raises BadImage."""
    top, end = _top_level(data)
    if data[8:12] == b"avis":
        raise BadImage("animated_image", "This is an animated AVIF.", "Send one still picture.")
    meta = next((box for box in top if box.kind == b"meta"), None)
    if meta is None:
        raise truncated(NAME)
    parts = bmff.children(data, meta, 4)
    inner = {box.kind: box for box in reversed(parts)}
    if missing := {b"pitm", b"iinf", b"iloc", b"iprp"} - inner.keys():
        raise corrupt(NAME, f"its {min(missing).decode()} box is missing")
    items = bmff.items(data, inner[b"iinf"])
    idle = {number for number, item in items.items() if item.kind in _METADATA or item.kind == _NOTHING}
    extents = bmff.extents(data, inner[b"iloc"], inner.get(b"idat"))
    # Metadata outside the file, blanked or not, counts as absent.
    extents = [extent for extent in extents if extent[2] <= end or extent[0] not in idle]
    if any(stop > end for _, _, stop in extents):
        raise truncated(NAME)
    pitm = bmff.BoxReader(data, inner[b"pitm"].start, inner[b"pitm"].end)
    primary = pitm.take(2 if pitm.take(4) >> 24 == 0 else 4)
    if primary not in {item for item, _, _ in extents} & items.keys() or items[primary].kind in _METADATA:
        raise corrupt(NAME, "its picture is nowhere in the file")
    patches = _patches(data, top, parts, items, extents)
    header, profile, primaries = _properties(data, inner[b"iprp"], primary, metadata=bool(patches) or end < len(data))
    _check_frames(data, items, extents, header)
    references = bmff.references(data, inner[b"iref"]) if b"iref" in inner else []
    header = replace(
        header,
        extra_pictures=header.extra_pictures or _has_another(items, references, primary) or begins_picture(data, end),
        density=density(_exif(data, items, extents)),
    )
    return Scan(header=header, icc=profile, primaries=primaries, parts=_patched(data, end, patches))


def _has_another(items: dict[int, Item], references: list[Reference], primary: int) -> bool:
    """Whether there is an image that is not a part, a thumbnail or a channel of the primary one."""
    parts = {item for kind, item, _ in references if kind in (b"thmb", b"auxl")}
    parts |= {named for kind, _, named in references if kind == b"dimg"}
    return any(item.kind in _PICTURES and number not in parts | {primary} for number, item in items.items())


def _exif(data: bytes, items: dict[int, Item], extents: list[Extent]) -> bytes:
    """Return the EXIF block of the first EXIF item, without the offset field before it; empty if there is none."""
    pieces = [data[start:stop] for number, start, stop in extents if number in items and items[number].kind == b"Exif"]
    return pieces[0][4 + int.from_bytes(pieces[0][:4], "big") :] if pieces else b""


def _check_frames(data: bytes, items: dict[int, Item], extents: list[Extent], header: Header) -> None:
    """Raise BadImage if the coded frames are far larger than the declared size: a decoder allocates memory for them."""
    view = memoryview(data)
    coded: dict[int, list[memoryview]] = {}
    for number, start, stop in extents:
        if number in items and items[number].kind == b"av01":
            coded.setdefault(number, []).append(view[start:stop])
    most = _MARGIN_FACTOR * header.width * header.height + _MARGIN_PIXELS
    for pieces in coded.values():
        for width, height in av1.frames(pieces[0] if len(pieces) == 1 else b"".join(pieces), NAME):
            if width * height > most:
                raise corrupt(NAME, f"it says {header.width}x{header.height}, and holds {width}x{height}")


def _top_level(data: bytes) -> tuple[list[Box], int]:
    """Return the file's top-level boxes and where they end. Raises BadImage if the file is truncated within one."""
    top = list(bmff.boxes(data, 0, len(data)))
    # A second file after the first, or zeros, which would be read as a box up to the end of the file.
    foreign = next((at for at, box in enumerate(top) if _is_foreign(box, at)), None)
    if foreign is not None:
        return top[:foreign], top[foreign].at
    end = top[-1].end if top else 0
    # If it begins like a box of this format but exceeds the file, it was cut off; anything else was appended.
    if not top or data[end + 4 : end + 8] in _TOP_LEVEL:
        raise truncated(NAME)
    return top, end


def _is_foreign(box: Box, at: int) -> bool:
    return (box.kind == b"ftyp" and at > 0) or box.kind == bytes(4)


def _properties(data: bytes, iprp: Box, primary: int, *, metadata: bool) -> tuple[Header, bytes | None, int]:
    """Return the header from the primary item's properties. Raises BadImage if its size is not among them."""
    inner = bmff.children(data, iprp)
    container = next((box for box in inner if box.kind == b"ipco"), None)
    if container is None:
        raise corrupt(NAME, "its properties are missing")
    every = bmff.children(data, container)
    # There is one, or one for each combination of the two sizes of item and property numbers.
    associations = [box for box in inner if box.kind == b"ipma"][:4]
    numbers = dict.fromkeys(n for box in associations for n in bmff.properties_of(data, box, primary))
    own = [every[number - 1] for number in numbers if 0 < number <= len(every)]
    size = next((box for box in own if box.kind == b"ispe"), None)
    if size is None:
        raise corrupt(NAME, "its size is missing")
    reader = bmff.BoxReader(data, size.start + 4, size.end)
    width, height = reader.take(4), reader.take(4)
    if not (width and height):
        raise corrupt(NAME, f"its size is {width}x{height}")
    turns = next((data[box.start] & 3 for box in own if box.kind == b"irot" and box.start < box.end), 0)
    mirror = next((data[box.start] & 1 for box in own if box.kind == b"imir" and box.start < box.end), None)
    srgb, profile, hdr, primaries = _colour(data, own)
    bits = _bits(data, every, own)
    auxiliary = [data[box.start + 4 : box.end] for box in every if box.kind == b"auxC"]
    header = Header(
        format="avif",
        width=width,
        height=height,
        alpha=any(name.startswith(_ALPHA) for name in auxiliary),
        # The orientation in EXIF does not apply in AVIF, only that of the properties; decoders apply neither.
        orientation=_ORIENTATION[turns, mirror],
        plain=srgb and bits <= 8,
        metadata=metadata,
        bits=bits,
        profile=bool(profile) or hdr is not None,
        hdr=hdr,
        extra_pictures=any(_GAIN_MAP in name for name in auxiliary),
    )
    return header, profile, primaries


def _bits(data: bytes, every: list[Box], own: list[Box]) -> int:
    """Return the bits per sample: parts of a grid declare them in av1C, the image in pixi."""
    flags = [data[box.start + 2 : box.end][0] for box in every if box.kind == b"av1C"]
    codec = [(12 if flag & 0x20 else 10) if flag & 0x40 else 8 for flag in flags]
    channels = [bits for box in own if box.kind == b"pixi" for bits in data[box.start + 5 : box.end]]
    return max([8, *codec, *channels])


def _colour(data: bytes, own: list[Box]) -> tuple[bool, bytes | None, Hdr | None, int]:
    """Return whether the samples are sRGB, their ICC profile if they are not, the HDR curve and its primaries.

    ICC takes precedence over nclx.
    """
    colr = sorted((data[box.start : box.end] for box in own if box.kind == b"colr"), key=lambda c: c[:4] == b"nclx")
    if not colr:
        return True, None, None, 1
    if colr[0][:4] in (b"prof", b"rICC"):
        profile = colr[0][4:]
        return (True, None, None, 1) if icc.is_srgb(profile) else (False, profile, None, 1)
    primaries, transfer = (int.from_bytes(colr[0][at : at + 2], "big") for at in (4, 6))
    return *icc.from_code_points(primaries, transfer), icc.HDR.get(transfer), primaries


def _patches(
    data: bytes, top: list[Box], meta: list[Box], items: dict[int, Item], extents: list[Extent]
) -> list[_Patch]:
    """Return the patches that blank the metadata: its items get a type that no reader knows, and zeros as content.

    Raises BadImage if metadata items overlap each other or anything else.
    """
    hidden = {number for number, item in items.items() if item.kind in _METADATA}
    foreign = [box for box in top if box.kind == b"uuid"]
    patches = [_Patch(box.at + 4, b"free" + bytes(box.end - box.at - 8)) for box in foreign]
    for number in hidden:
        item = items[number]
        patches.append(_Patch(item.kind_at, _NOTHING + bytes(item.box.end - item.kind_at - 4)))
    spans = [(box.at, box.end, True) for box in foreign]
    spans += [(box.at, box.start, False) for box in top if box.kind != b"uuid"]
    spans += [(box.at, box.start if box.kind == b"idat" else box.end, False) for box in meta]
    for number, start, stop in extents:
        spans.append((start, stop, number in hidden))
        if number in hidden:
            patches.append(_Patch(start, bytes(stop - start)))
    reached, blank_there = 0, False
    for start, stop, blank in sorted(spans):
        if start < reached and (blank or blank_there):
            raise corrupt(NAME, "its metadata and its picture overlap")
        if stop > reached:
            reached, blank_there = stop, blank
    return sorted(patches, key=lambda patch: patch.at)


def _patched(data: bytes, end: int, patches: list[_Patch]) -> tuple[bytes | memoryview, ...]:
    view, at = memoryview(data), 0
    parts: list[bytes | memoryview] = []
    for patch in patches:
        parts += (view[at : patch.at], patch.new)
        at = patch.at + len(patch.new)
    return (*parts, view[at:end])
