"""The pictures of the measurements: noise, so that a file has the size that its pixels say."""

from __future__ import annotations

import io
import random

from PIL import Image

# The picture that is asked for, and the one that is given: about 590 and 555 kB.
SIDES = (512, 384)
FACTOR = 2
_SEED = 20_261
# A PNG of noise is as large as its samples; the result is one part noise to three of something plain.
_NOISE_ROWS = 3


def upload(width: int, height: int) -> bytes:
    """A PNG of about three bytes a pixel."""
    return _png(random.Random(_SEED).randbytes(width * height * 3), width, height)


def result(width: int, height: int) -> bytes:
    """A PNG of about three quarters of a byte a pixel."""
    noise = random.Random(_SEED + 1)
    row = width * 3
    rows = [noise.randbytes(row) if at % (_NOISE_ROWS + 1) == 0 else bytes([at % 251]) * row for at in range(height)]
    return _png(b"".join(rows), width, height)


def _png(samples: bytes, width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.frombytes("RGB", (width, height), samples).save(file, "PNG", compress_level=1)
    return file.getvalue()
