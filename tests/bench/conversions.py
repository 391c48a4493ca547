"""Picture work by itself."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from functools import partial

from PIL import Image

from normalization.images.encode import encode
from normalization.images.sniff import sniff
from normalization.images.transform import finish
from normalization.values import Format, Resize, Size, Transcode
from tests.bench.report import table
from tests.support.paths import COFFEE

_PHOTO = COFFEE.read_bytes()
_FORMATS: tuple[Format, ...] = ("png", "jpeg", "webp", "gif", "avif")
_TIMES = 5


def measure() -> None:
    """Print what each conversion takes, and what the library's own reading and writing in that take."""
    header = sniff(_PHOTO)
    rows: list[tuple[object, ...]] = []
    for name in _FORMATS:
        own = _least(partial(finish, _PHOTO, header, [Transcode(format=name)]))
        alone = _least(partial(_library, name))
        rows.append((f"to {name}", own, alone, own / alone))
    half = Resize(size=Size(width=300, height=300))
    rows.append(
        ("crop to 300x300, png", _least(lambda: finish(_PHOTO, header, [half, Transcode(format="png")])), "", "")
    )
    columns = ["600x400 PNG", "CPU ms, least of 5", "by the library alone", "ratio"]
    note = "A PNG that is to be one stays as it is. By the library alone: decoded, and encoded with our settings."
    table("Conversions", columns, rows, note)


def _library(name: Format) -> None:
    with Image.open(io.BytesIO(_PHOTO)) as image:
        encode(image.convert("RGB"), name, None)


def _least(work: Callable[[], object]) -> float:
    times = []
    for _ in range(_TIMES):
        began = time.process_time()
        work()
        times.append((time.process_time() - began) * 1000)
    return min(times)
