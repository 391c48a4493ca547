"""Pictures and results as people and providers make them, over real HTTP: they are delivered, bought once, and told."""

from __future__ import annotations

import shutil
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, ImageCms

from gateway.settings.loader import SHIPPED
from tests.simulators.common import Fault, overheard
from tests.support.likeness import decibels, mean_square
from tests.support.pictures import (
    BLUE,
    DISPLAY_P3,
    GREEN,
    RED,
    WHITE,
    chunk,
    corners,
    encoded,
    exif,
    near,
    noise,
    opened,
    plain,
    quarters,
    raw_png,
    transparent,
)
from tests.support.world import Answer, World, world


@pytest.fixture(scope="module")
def there() -> Iterator[World]:
    """Two providers, so that something could be bought twice."""
    with world("fal", "replicate") as made:
        yield made


def warnings(answer: Answer) -> str:
    """The warnings of a good answer."""
    assert answer.status == 200, answer.text
    return "\n".join(answer.body["metadata"].get("warnings", []))


def result(width: int = 128, height: int = 96) -> bytes:
    """A provider's answer in the size that twice 64x48 gives."""
    return encoded(corners(width, height), "png")


def spoiled(kind: bytes, body: bytes) -> bytes:
    """A chunk whose checksum is wrong."""
    whole = chunk(kind, body)
    return whole[:-1] + bytes((whole[-1] ^ 1,))


DAMAGED = {
    "text": result()[:33] + spoiled(b"tEXt", b"Comment\0hi") + result()[33:],
    "profile": result()[:33] + spoiled(b"iCCP", b"a\0\0" + zlib.compress(DISPLAY_P3)) + result()[33:],
    "pixels": result().replace(result()[-16:-12], b"\0\0\0\0"),
    "no end": result()[:-12],
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_paid_result_with_damage(there: World, name: str) -> None:
    """Its pixels decode: it is delivered, and neither refused nor bought again."""
    before = there.taken("fal"), there.taken("replicate")
    there.sims["fal"].faults.script("download", Fault(status=200, body=DAMAGED[name]))
    answer = there.edit(plain("png"), routing='{"order": ["fal"]}')

    assert answer.status == 200, answer.text
    found = quarters(opened(answer.images[0]))
    assert all(near(colour, wanted) for colour, wanted in zip(found, (RED, GREEN, BLUE, WHITE), strict=True))
    assert (there.taken("fal"), there.taken("replicate")) == (before[0] + 1, before[1])
    assert "image editor" not in answer.text


@pytest.mark.parametrize(
    ("came", "delivered", "words"),
    [
        ((256, 192), (128, 96), "the image was resized to the expected size"),
        ((96, 96), (96, 96), "another aspect ratio"),
    ],
)
def test_a_paid_result_of_another_size(
    there: World, came: tuple[int, int], delivered: tuple[int, int], words: str
) -> None:
    """One of the same shape is brought to size, one of another is delivered: each with a warning, and bought once."""
    before = there.taken("fal"), there.taken("replicate")
    there.sims["fal"].faults.script("download", Fault(status=200, body=result(*came)))
    answer = there.edit(plain("png"), routing='{"order": ["fal"]}')

    assert words in warnings(answer)
    assert opened(answer.images[0]).size == delivered
    assert (there.taken("fal"), there.taken("replicate")) == (before[0] + 1, before[1])


def test_transparency_that_no_route_can_give(there: World) -> None:
    """A model that draws anew has no place for the alpha channel: flattened and told, or refused."""
    logo = encoded(transparent(), "png")
    model = "flux-kontext-pro"
    before = there.taken("fal"), there.taken("replicate")
    refused = there.edit(logo, model=model, background="transparent")

    assert (refused.status, refused.body["error"]["param"]) == (400, "background")
    assert "drops the transparency" in refused.body["error"]["message"]
    assert (there.taken("fal"), there.taken("replicate")) == before
    assert "Transparent areas were flattened onto #ffffff" in warnings(there.edit(logo, model=model))


def pq(fmt: str) -> bytes:
    """A picture in PQ, all of it of one code: 58 % is its reference white of 203 nits."""
    code = round(0.5807 * 255)
    if fmt == "png":
        return raw_png((24, 16), 8, 2, bytes((code,)) * 24 * 16 * 3, chunk(b"cICP", bytes((9, 16, 0, 1))))
    data = encoded(Image.new("RGB", (24, 16), (code,) * 3), "avif", quality=100, subsampling="4:4:4")
    at = data.index(b"nclx") + 4
    return data[:at] + struct.pack(">HH", 9, 16) + data[at + 4 :]


@pytest.mark.parametrize("fmt", ["png", "avif"])
def test_hdr_is_tone_mapped(there: World, fmt: str) -> None:
    """The reference white becomes all but sRGB's own, which is at 148 where the codes are taken as they are."""
    answer = there.edit(pq(fmt))

    assert "HDR (PQ) was tone-mapped" in warnings(answer)
    assert not any(opened(answer.images[0]).convert("L").histogram()[:236])


def test_a_second_picture_is_told(there: World) -> None:
    """A phone's file has one more behind the first."""
    assert "Only the main image was kept" in warnings(there.edit(plain("jpeg") + plain("jpeg")))


@pytest.mark.parametrize("options", [{"icc_profile": DISPLAY_P3}, {"exif": exif(6)}], ids=["P3", "turned"])
def test_a_phones_jpeg_fits(tmp_path: Path, options: dict[str, object]) -> None:
    """It is larger than the provider takes once it is a PNG, and is sent as a JPEG of high quality then, and told."""
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "config"))
    toml = folder / "models" / "clarity-upscaler.toml"
    toml.write_text(toml.read_text().replace("26_214_400", "100_000"))
    photo = Image.blend(noise(400, 300), corners(400, 300), 0.8)
    sent = encoded(photo, "jpeg", quality=88, **options)
    assert len(sent) < 100_000 < len(encoded(photo, "png"))
    with world("apiframe", config=folder) as small, overheard() as bodies:
        answer = small.edit(sent)

    assert "sent as JPEG of quality 95" in warnings(answer)
    upload = next(body for body in bodies if b"\xff\xd8\xff" in body)
    start = upload.index(b"\xff\xd8\xff")
    with Image.open(BytesIO(upload[start:])) as found:
        assert found.format == "JPEG"
        assert found.size == ((300, 400) if "exif" in options else (400, 300))
        # Twice: the camera's own encoding is as far away from the photograph.
        lost = mean_square(opened(sent).convert("RGB"), photo)
        if "exif" in options:
            wanted = photo.transpose(Image.Transpose.ROTATE_270)
        else:
            wanted = ImageCms.profileToProfile(photo, BytesIO(DISPLAY_P3), ImageCms.createProfile("sRGB")) or photo
        assert decibels(mean_square(found.convert("RGB"), wanted)) > decibels(2 * lost)
