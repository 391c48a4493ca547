"""The delivered enlargement is better than what any picture library does by itself."""

from __future__ import annotations

import math

from openai import OpenAI
from PIL import Image as Pillow
from PIL import ImageChops, ImageStat
from PIL.Image import Image

from tests.support.paths import COFFEE
from tests.support.photo import picture, saved


def psnr(made: Image, original: Image) -> float:
    """Peak signal to noise ratio of the luma, in dB."""
    difference = ImageChops.difference(made.convert("L"), original.convert("L"))
    [mean] = ImageStat.Stat(difference).rms
    return 20 * math.log10(255 / mean)


def test_better_than_bicubic(client: OpenAI) -> None:
    """Shrunk to half and enlarged again, the photograph comes nearer to itself than by bicubic enlargement."""
    with Pillow.open(COFFEE) as photo:
        original = photo.convert("RGB")
    half = original.resize((original.width // 2, original.height // 2), Pillow.Resampling.BICUBIC)
    bicubic = psnr(half.resize(original.size, Pillow.Resampling.BICUBIC), original)

    response = client.images.edit(
        image=saved(half), prompt="", model="lanczos-bp", extra_body={"scale_factor": 2}, response_format="b64_json"
    )
    ours = psnr(picture(response), original)

    print(f"luma PSNR on coffee.png, 2x: lanczos-bp {ours:.2f} dB, bicubic {bicubic:.2f} dB")
    assert ours > bicubic + 0.5
