"""What becomes of transparency on routes that keep it and on routes that drop it: in plans, and in pixels."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image as Pillow

from gateway.settings.loader import SHIPPED, load
from normalization.images.prepare import bled, ready
from normalization.images.sniff import BadImage, scan, sniff
from normalization.images.transform import decoded
from normalization.parameters.plan import Ineligible, plan
from normalization.values import Header, Image, ImageRequest, JoinAlpha, Plan, Sending, Transcode
from tests.support.pictures import encoded, near, noise

MODELS = load(SHIPPED, {}).models


def planned(model: str, route: str, *, alpha: bool = True, **params: Any) -> Plan:
    """The plan of one route for a picture."""
    header = Header(format="png", width=64, height=48, alpha=alpha)
    request = ImageRequest(
        model=model,
        images=(Image(data=b"", header=header),),
        params={"prompt": "a cup", **params},
        extra={},
        provider_options={},
        seed=1,
    )
    return plan(MODELS[model], MODELS[model].routes[route], request)


def test_a_route_that_keeps_it() -> None:
    """Nothing is done."""
    found = planned("lanczos-bp", "local")

    assert found.sending is None
    assert not any(isinstance(step, JoinAlpha) for step in found.finish)


def test_a_picture_without_any() -> None:
    """Nothing is done."""
    assert planned("clarity-upscaler", "fal", alpha=False).sending is None


@pytest.mark.parametrize("output_format", ["png", "webp", "gif", "avif"])
@pytest.mark.parametrize("background", ["auto", "transparent"])
def test_split(output_format: str, background: str) -> None:
    """The channel is joined to the result before anything else is done to it, and the caller is told."""
    found = planned("clarity-upscaler", "fal", output_format=output_format, background=background)

    assert found.sending is not None
    assert (found.sending.split, found.sending.flatten) == (True, None)
    assert isinstance(found.finish[0], JoinAlpha)
    assert any("alpha channel was enlarged" in note for note in found.notes)


@pytest.mark.parametrize("fields", [{"background": "opaque"}, {"background": "#102030"}, {"output_format": "jpeg"}])
def test_flattened(fields: dict[str, Any]) -> None:
    """What is to be opaque is made so before it is sent."""
    found = planned("clarity-upscaler", "fal", **fields)

    assert found.sending is not None
    assert not found.sending.split
    assert found.sending.flatten == (fields.get("background", "").replace("opaque", "") or "#ffffff")
    assert not any(isinstance(step, JoinAlpha) for step in found.finish)


def test_models_that_draw_anew() -> None:
    """The old alpha channel does not fit what they draw: transparency is told of, or cannot be had."""
    found = planned("flux-kontext-pro", "fal")

    assert found.sending is not None
    assert (found.sending.split, found.sending.flatten) == (False, "#ffffff")
    assert any("flattened onto #ffffff" in note for note in found.notes)
    with pytest.raises(Ineligible) as refused:
        planned("flux-kontext-pro", "fal", background="transparent")
    assert refused.value.param == "background"


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (64, 48), (33, 1)])
def test_colours_spread_below_what_is_invisible(size: tuple[int, int]) -> None:
    """What is visible stays as it is, and of the colours below the rest nothing is left but for roundings."""
    picture = Pillow.new("RGBA", size, (0, 255, 0, 0))
    picture.paste((200, 20, 40, 255), (0, 0, (size[0] + 1) // 2, size[1]))
    found = bled(picture)

    assert found.mode == "RGB"
    assert found.getpixel((0, 0)) == (200, 20, 40)
    assert all(near(pixel, (200, 20, 40), 12) for _, pixel in found.getcolors(10**6) or ())


def test_nothing_visible() -> None:
    """There is no colour to be spread."""
    assert bled(Pillow.new("RGBA", (5, 4), (0, 255, 0, 0))).getpixel((0, 0)) == (255, 255, 255)


def taken(data: bytes) -> Image:
    """A picture with its header."""
    return Image(data=data, header=sniff(data))


def test_too_large_as_it_is() -> None:
    """It is sent losslessly while that fits, as a JPEG that is not told from it where it does not, or not at all."""
    photo = noise(50, 40).resize((200, 150), Pillow.Resampling.BICUBIC)
    png = taken(encoded(photo, "png"))
    kept = ready(png, Sending(max_bytes=len(png.data)))
    smaller = ready(png, Sending(max_bytes=len(png.data) // 2))

    assert kept.image is png
    assert smaller.image.format == "jpeg"
    assert any("sent as JPEG of quality 95" in note for note in smaller.notes)
    with pytest.raises(BadImage) as refused:
        ready(png, Sending(max_bytes=100))
    assert refused.value.code == "image_too_large"


def test_transparent_and_too_large() -> None:
    """JPEG has no transparency, so that it is a lossless WebP."""
    picture = noise(200, 150).convert("RGBA")
    picture.putalpha(Pillow.linear_gradient("L").resize((200, 150)))
    png = taken(encoded(picture, "png"))
    found = ready(png, Sending(max_bytes=len(png.data) - 1))

    assert found.image.format == "webp"
    assert decoded(scan(found.image.data)).tobytes() == picture.tobytes()


def test_a_format_that_the_route_does_not_take() -> None:
    """It is encoded anew, and lossless."""
    webp = taken(encoded(noise(), "webp"))

    assert ready(webp, Sending(formats=("png", "jpeg"))).image.format == "png"


def test_the_step_needs_no_more_than_its_route_says() -> None:
    """A plan's finishing step says the format last."""
    assert isinstance(planned("clarity-upscaler", "fal").finish[-1], Transcode)
