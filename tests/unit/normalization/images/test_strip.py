"""Metadata taken out of files whose pixels stay as they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from normalization.images.sniff import BadImage, sniff
from normalization.images.transform import strip
from tests.support import pictures
from tests.support.pictures import ALL, FEATURES, SECRET, chunk, encoded, feature, noise, opened, plain, taken


@pytest.mark.parametrize("fmt", ALL)
def test_no_metadata(fmt: str) -> None:
    """Where there is nothing to remove the very same object comes back."""
    picture = taken(plain(fmt))

    assert strip(picture) is picture


@pytest.mark.parametrize("name", [name for name in FEATURES if name.endswith("-metadata")])
def test_the_secret_is_gone(name: str) -> None:
    """EXIF, XMP, comments and text are no longer inside, and the pixels are exactly what they were."""
    data = feature(name)
    stripped = strip(taken(data))
    before, after = opened(data), opened(stripped.data)

    assert SECRET in data
    assert SECRET not in stripped.data
    assert stripped.header == replace(sniff(data), metadata=False)
    assert sniff(stripped.data) == stripped.header
    assert after.tobytes() == before.tobytes()
    assert not dict(after.getexif())
    assert not {"exif", "xmp", "comment", "Comment", "Long", "XML:com.adobe.xmp", "photoshop"} & set(after.info)


@pytest.mark.slow
def test_compressed_text_is_not_inflated() -> None:
    """A text of a gigabyte, which Pillow refuses to open, goes without being looked into."""
    bomb = pictures.with_chunk(plain("png"), chunk(b"zTXt", b"Comment\0\0" + pictures.deflated_zeros(1 << 30)))

    assert strip(taken(bomb)).data == plain("png")


@pytest.mark.parametrize("fmt", ALL)
def test_bytes_behind_the_end(fmt: str) -> None:
    """What was appended goes, and the file is what it was before."""
    assert strip(taken(plain(fmt) + SECRET)).data == plain(fmt)


def test_stray_bytes_between_segments() -> None:
    """JPEG decoders pass over them; they go."""
    data = plain("jpeg")
    behind_jfif = 20

    assert strip(taken(data[:behind_jfif] + SECRET + data[behind_jfif:])).data == data


def test_a_gif_that_ends_twice() -> None:
    """A second terminator behind the picture is passed over by decoders; it goes."""
    data = plain("gif")

    assert strip(taken(data[:-1] + b"\0\x3b")).data == data


def test_the_flags_of_webp() -> None:
    """The extended header no longer announces what is not there."""
    exif_and_xmp, at = 0x0C, 20

    assert feature("webp-metadata")[at] & exif_and_xmp == exif_and_xmp
    assert strip(taken(feature("webp-metadata"))).data[at] & exif_and_xmp == 0


def test_the_second_picture_of_a_phone() -> None:
    """What is behind the first picture of an MPO goes, with the index that names it."""
    data = encoded(noise(), "mpo", save_all=True, append_images=[noise(16, 16)])
    stripped = opened(strip(taken(data)).data)

    assert opened(data).format == "MPO"
    assert stripped.format == "JPEG"
    assert stripped.tobytes() == opened(data).tobytes()


@pytest.mark.parametrize("fmt", ["png", "jpeg", "webp", "avif"])
def test_the_profile_stays(fmt: str) -> None:
    """The pixels cannot be read without their profile."""
    data = encoded(noise(), fmt, icc_profile=pictures.DISPLAY_P3, exif=pictures.exif())

    assert opened(strip(taken(data)).data).info["icc_profile"] == pictures.DISPLAY_P3


def test_what_the_pixels_of_a_png_need_stays() -> None:
    """Palette, transparency and resolution are no metadata."""
    data = encoded(noise().quantize(16), "png", transparency=3, dpi=(300, 300), exif=pictures.exif())
    stripped = opened(strip(taken(data)).data)

    assert stripped.convert("RGBA").tobytes() == opened(data).convert("RGBA").tobytes()
    assert stripped.info["transparency"] == 3
    assert "dpi" in stripped.info


def test_a_cmyk_jpeg_keeps_its_meaning() -> None:
    """Adobe's segment says how the four inks are stored: without it the picture would be a negative."""
    data = pictures.with_segment(feature("jpeg-cmyk"), 0xFE, SECRET)

    assert opened(strip(taken(data)).data).tobytes() == opened(data).tobytes()


def test_a_long_profile_in_pieces() -> None:
    """A JPEG's profile may be spread over several segments, and all of them stay."""
    profile = pictures.DISPLAY_P3 + bytes(150_000)
    data = encoded(noise(), "jpeg", icc_profile=profile, exif=pictures.exif())

    assert not sniff(data).plain
    assert opened(strip(taken(data)).data).info["icc_profile"] == profile


def test_a_turned_picture() -> None:
    """A picture that only its metadata turns cannot lose it."""
    with pytest.raises(ValueError, match="orientation 6"):
        strip(taken(feature("jpeg-turned")))


def test_metadata_outside_of_the_file() -> None:
    """It is passed over before it is blanked, and as well afterwards."""
    data = bytearray(feature("avif-metadata"))
    place = data.find(b"iloc")
    for at in range(place + 12, place + 60):  # one of these is in the offset or the length of the EXIF
        changed = bytearray(data)
        changed[at] ^= 0x01
        try:
            picture = taken(bytes(changed))
        except BadImage:
            continue
        assert sniff(strip(picture).data) == replace(picture.header, metadata=False)


@given(st.sampled_from([name for name in FEATURES if name.endswith("-metadata")]), st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_stripping_once_is_enough(name: str, draw: st.DataObject) -> None:
    """Whatever was damaged: what is stripped has no metadata and is otherwise the same picture."""
    data = bytearray(feature(name))
    at = draw.draw(st.integers(0, min(len(data) - 1, 900)))
    data[at : at + draw.draw(st.integers(0, 3))] = draw.draw(st.binary(max_size=3))
    try:
        picture = taken(bytes(data))
    except BadImage:
        return
    if picture.header.orientation == 1:
        stripped = strip(picture)
        assert sniff(stripped.data) == stripped.header == replace(picture.header, metadata=False)
