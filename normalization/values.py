"""The frozen values shared by the whole project."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Format = Literal["png", "jpeg", "webp", "gif", "avif"]
ResizeMode = Literal["crop", "pad", "stretch", "fit"]

MEDIA_TYPES: Mapping[str, str] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "avif": "image/avif",
}
FORMATS: tuple[str, ...] = tuple(MEDIA_TYPES)
# The transfer curves of ITU-R BT.2100.
Hdr = Literal["pq", "hlg"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Facts about an image, read from its file structure without decoding it.

    `width` and `height` are in pixels as stored: `orientation` (EXIF, 1 to 8) is not applied. `plain` is true for
    8-bit grey, RGB, RGBA or palette samples in sRGB (or without a profile), which all providers read the same
    way; false for CMYK, 16-bit and other colour profiles. `metadata` is true if there is EXIF, XMP, IPTC, a comment or
    text.

    Decoding to 8-bit sRGB loses the following: `bits` per sample (8 for palettes); `cmyk`; `profile`, true if the
    colours need a conversion (an ICC profile other than sRGB, numbered primaries, another gamma); `hdr`, a transfer
    curve beyond the range of a screen; `extra_pictures`, true for a second image in the file or a gain map. `density`
    is in dots per inch, x and y as stored, None if the file does not state it.
    """

    format: Format
    width: int
    height: int
    alpha: bool = False
    animated: bool = False
    orientation: int = 1
    plain: bool = True
    metadata: bool = False
    bits: int = 8
    cmyk: bool = False
    profile: bool = False
    hdr: Hdr | None = None
    extra_pictures: bool = False
    density: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image file and its header. The bytes are passed by reference, never copied and never printed."""

    data: bytes = field(repr=False)
    header: Header

    @property
    def format(self) -> Format:
        return self.header.format

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.header.format]

    @property
    def width(self) -> int:
        """Width in pixels with the orientation applied."""
        return self.header.height if self.header.orientation >= 5 else self.header.width

    @property
    def height(self) -> int:
        """Height in pixels with the orientation applied."""
        return self.header.width if self.header.orientation >= 5 else self.header.height

    def digest(self) -> str:
        """SHA-256 of the bytes, as hex digits."""
        return hashlib.sha256(self.data).hexdigest()


# JSON with images as leaves: the adapter decides how an image is sent (data URI, upload, signed URL).
Value: TypeAlias = "bool | int | float | str | Image | list[Value] | dict[str, Value] | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def megapixels(self) -> float:
        return self.width * self.height / 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """A client's request, typed by the model's declarations and independent of HTTP.

    `params` holds the declared parameters that the client set, `extra` the undeclared fields, `provider_options` fields
    for a single provider. `seed` is the base of the images' seeds: the client's, or drawn when the request arrives,
    so that an image keeps its seed on another route. `notes` are sentences on what the images lost when they were read;
    `density` is that of the first image, in dots per inch, x and y.
    """

    model: str
    images: tuple[Image, ...]
    params: Mapping[str, Value]
    extra: Mapping[str, Value]
    provider_options: Mapping[str, Mapping[str, Value]]
    seed: int
    notes: tuple[str, ...] = ()
    density: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """A finishing step: deliver exactly `size`; with `fit`, an image inside it.

    `crop` keeps the aspect ratio, covers the size and crops both ends equally; `pad` keeps the aspect ratio and fills
    the margins with `background` (None: transparent if the format has alpha, else white); `stretch` changes the aspect
    ratio; `fit` keeps it and delivers the largest image that fits into the size.

    `tell` requests a note on how the step changed the shape, if that could not be known before.
    """

    size: Size
    mode: ResizeMode = "crop"
    background: str | None = None
    tell: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcode:
    """A finishing step: deliver this format.

    `quality` is 0 to 100 (jpeg, webp, avif; None: the measured default of the format). `background` is the `#rrggbb`
    that transparent areas are flattened onto: always for a format without alpha (None: white), for every format if
    `opaque` is set. `density` is written into the file, in dots per inch, x and y, if the format can store it.
    """

    format: Format
    quality: int | None = None
    background: str | None = None
    opaque: bool = False
    density: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinAlpha:
    """A finishing step: restore the input's transparency, which the route drops.

    `alpha` is the alpha channel as a grey PNG in the input's size; None in a plan, before the channel is extracted, and
    if it was lost since. `black` is true if the input is entirely black, so that a black result does not mean that a
    filter blanked it.
    """

    alpha: bytes | None = field(default=None, repr=False)
    black: bool = False


Step: TypeAlias = Resize | Transcode | JoinAlpha


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How images are prepared before they are sent to a route.

    `flatten` is the `#rrggbb` that transparent areas are flattened onto. `split` removes the alpha channel instead and
    extends the colours of visible areas into invisible ones, so that no other colour appears at an edge. An image
    larger than `max_bytes` is encoded in one of `formats` so that it becomes smaller.
    """

    flatten: str | None = None
    split: bool = False
    max_bytes: int | None = None
    formats: tuple[Format, ...] = ("png", "jpeg", "webp")


@dataclass(frozen=True, slots=True)
class Announced:
    """The inputs that a worker announces: nothing else is sent to it, and never a URL.

    `inputs` is None if it has not announced any (yet): then only the route's declared fields are sent.
    """

    inputs: frozenset[str] | None

    def takes(self, field: str) -> bool:
        """Whether a payload field, given its top-level name, may be sent."""
        return self.inputs is None or field in self.inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one route serves one request.

    `calls` has one payload per upstream call; each call returns `pictures_per_call` images of the size `output` (None:
    the provider decides; the price is then estimated for `likely`). `finish` are the steps that turn each of them into
    the delivered image of size `delivered`. `sending` is how the images in `calls` are prepared (None: not at all).
    `notes` are sentences for the client: every loss and every ignored value. `seeds` has the seed of each call as a
    client would set it, if the route takes one. `work` is the factor that multiplies the route's price.
    """

    calls: tuple[Mapping[str, Value], ...]
    pictures_per_call: int = 1
    output: Size | None = None
    likely: Size | None = None
    delivered: Size | None = None
    finish: tuple[Step, ...] = ()
    sending: Sending | None = None
    notes: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    work: float = 1.0


def fields_of(value: Any) -> dict[str, Any]:
    """A dataclass's fields by name, not copied: for plain values, at a tenth of the cost of `asdict`."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


WHITE = "#ffffff"


# Formats without an alpha channel.
OPAQUE = ("jpeg",)
