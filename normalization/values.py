"""The frozen vocabulary that every room speaks."""

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
    """What a picture says of itself in its first bytes and its structure; nothing is decoded for it.

    `width` and `height` are in pixels as stored: `orientation` (EXIF, 1 to 8) is not applied. `plain` is true for
    8-bit grey, RGB, RGBA or palette samples in sRGB (or without a profile), which every provider reads alike; false
    for CMYK, 16-bit and foreign colour profiles. `metadata` is true when EXIF, XMP, IPTC, comments or text are inside.

    What decoding to 8-bit sRGB would lose: `bits` are those of a sample (of a palette's entries: 8); `cmyk`; `profile`
    says that the colours need a conversion (an ICC profile other than sRGB, primaries by number, another gamma); `hdr`
    names a transfer curve above the range of a screen; `extra_pictures` says that there is a second picture behind the
    first or in it, or a gain map. `density` is in dots per inch, x and y as stored, None where the file does not say.
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
    """A picture as its bytes and its header. The bytes are passed along, never copied and never shown."""

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
        """Width in pixels as a person sees it: with the orientation applied."""
        return self.header.height if self.header.orientation >= 5 else self.header.width

    @property
    def height(self) -> int:
        """Height in pixels as a person sees it: with the orientation applied."""
        return self.header.width if self.header.orientation >= 5 else self.header.height

    def digest(self) -> str:
        """SHA-256 of the bytes, as hex digits."""
        return hashlib.sha256(self.data).hexdigest()


# JSON, with pictures as leaves: an adapter decides how a picture travels (data URI, upload, signed address).
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
    """What the caller asks for, typed by the model's declarations and free of any transport.

    `params` holds declared parameters that the caller gave, `extra` the undeclared fields, `provider_options` what is
    meant for one provider alone. `seed` is the base of the pictures' seeds: the caller's, or drawn once at the door, so
    that a picture that moves to another route keeps its seed. `notes` are sentences on what the pictures lost when they
    were read; `density` is that of the first one, in dots per inch, x and y.
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
    """A finishing step: deliver exactly `size`, with `fit` a picture inside it.

    `crop` keeps the aspect ratio, covers the size and cuts the overhang off evenly; `pad` keeps the aspect ratio and
    fills what is left with `background` (transparent where that is None and the format has alpha, else white);
    `stretch` gives up the aspect ratio; `fit` keeps it, and gives the largest whole picture that has room in the size.

    `tell` asks whoever carries the step out to say what it did to the picture's shape: nobody could before.
    """

    size: Size
    mode: ResizeMode = "crop"
    background: str | None = None
    tell: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcode:
    """A finishing step: deliver this format.

    `quality` is 0 to 100 (jpeg, webp, avif; None: the measured default of the format). `background` is the `#rrggbb`
    that transparent areas are flattened onto: always for a format without alpha (None: white), and for every format
    when `opaque` is set. `density` is written into the file, in dots per inch, x and y, where the format holds one.
    """

    format: Format
    quality: int | None = None
    background: str | None = None
    opaque: bool = False
    density: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinAlpha:
    """A finishing step: give the picture back the transparency of the one that was sent, which a route drops.

    `alpha` is that channel as a grey PNG, in the size of the picture that was sent; None in a plan, before the picture
    is taken apart, and where the channel was lost since. `black` says that its colours are black all over, so that a
    black result is none of a filter.
    """

    alpha: bytes | None = field(default=None, repr=False)
    black: bool = False


Step: TypeAlias = Resize | Transcode | JoinAlpha


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """What is done to pictures before they are sent to a route.

    `flatten` is the `#rrggbb` that transparent areas are flattened onto. `split` takes the alpha channel off instead,
    and spreads the colours of visible areas below the invisible ones, so that nothing else shows at an edge. A picture
    of more than `max_bytes` is encoded smaller, in one of `formats`.
    """

    flatten: str | None = None
    split: bool = False
    max_bytes: int | None = None
    formats: tuple[Format, ...] = ("png", "jpeg", "webp")


@dataclass(frozen=True, slots=True)
class Announced:
    """What the program at the end of a route says that it takes: nothing else is sent there, and no address at all.

    `inputs` is None where it has not said so (yet): then what the route declares is sent, and nothing undeclared.
    """

    inputs: frozenset[str] | None

    def takes(self, field: str) -> bool:
        """Whether a payload field, by its outermost name, may be sent."""
        return self.inputs is None or field in self.inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one route serves one request.

    `calls` has one payload for each upstream call; each call is to give `pictures_per_call` pictures of the size
    `output` (None: the provider decides; a price is estimated for `likely` then). `finish` are the steps that turn each
    of them into the delivered picture of size `delivered`. `sending` is what is done to the pictures in `calls` before
    (None: nothing). `notes` are sentences for the caller: every loss and every ignored value. `seeds` has the seed of
    each call as a caller would give it, where the route is sent one. `work` is by what the figures of the route's price
    are multiplied for this request.
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
    """A dataclass's fields by their names, as they are: for what holds plain values alone, `asdict` at a tenth."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


WHITE = "#ffffff"


# Formats without an alpha channel.
OPAQUE = ("jpeg",)
