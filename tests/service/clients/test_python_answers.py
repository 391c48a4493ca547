"""What the Python SDK gets back: formats, counts, sizes, how pictures are delivered, and what is said about them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.gateways import Edit
from tests.support.photo import BLUE, GREEN, RED, coffee, delivered, flat, half_transparent, near, picture, striped

FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP", "gif": "GIF", "avif": "AVIF"}
WHITE = (255, 255, 255)


def metadata(response: Any) -> dict[str, Any]:
    """What Darkroom says beside OpenAI's keys."""
    found: dict[str, Any] = response.metadata
    return found


@pytest.mark.parametrize("wanted", FORMATS)
def test_output_format(edit: Edit, wanted: str) -> None:
    """Every output format arrives as such a file, of the size that the answer tells."""
    response = edit(
        image=coffee(60, 40), prompt="", model="lanczos-bp", output_format=wanted, response_format="b64_json"
    )

    made = picture(response)
    assert made.format == FORMATS[wanted]
    assert made.size == (120, 80)
    assert response.size == "120x80"
    assert response.background == "opaque"
    # OpenAI's enum has no avif: typed clients fail on a word that they do not know.
    assert response.output_format == (None if wanted == "avif" else wanted)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_n(edit: Edit, count: int) -> None:
    """`n` pictures are n pictures, each an attempt of its own."""
    response = edit(image=flat(20, 10), prompt="", model="lanczos-bp", n=count)

    assert response.data
    assert [picture(response, i).size for i in range(len(response.data))] == [(40, 20)] * count
    assert len({item.url for item in response.data}) == count
    attempts = metadata(response)["attempts"]
    assert sorted(attempt["picture"] for attempt in attempts) == list(range(count))
    assert {attempt["outcome"] for attempt in attempts} == {"ok"}


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"response_format": "url"}, {"url"}),
        ({"response_format": "b64_json"}, {"b64_json"}),
        ({}, {"url", "b64_json"}),
        ({"extra_body": {"response_format": "both"}}, {"url", "b64_json"}),
        ({"model": "gpt-image-1"}, {"b64_json"}),
        ({"model": "gpt-image-1.5"}, {"b64_json"}),
        ({"model": "gpt-image-1", "response_format": "url"}, {"url"}),
        ({"model": "dall-e-2"}, {"url", "b64_json"}),
    ],
    ids=lambda given: str(sorted(given) if isinstance(given, set) else given),
)
def test_response_format(edit: Edit, asked: dict[str, Any], wanted: set[str]) -> None:
    """Pictures come as they were asked for; without a word as both, and for OpenAI's own models as base64."""
    response = edit(image=flat(20, 10), prompt="", **asked)

    assert response.data
    assert {name for name in ("url", "b64_json") if getattr(response.data[0], name) is not None} == wanted


@pytest.mark.parametrize("alias", ["dall-e-2", "gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5"])
def test_alias(edit: Edit, alias: str) -> None:
    """Names out of other programs' fixed lists are the model that the config says."""
    response = edit(image=flat(20, 10), prompt="", model=alias)

    assert metadata(response)["model"] == "clarity-upscaler"
    assert picture(response).size == (40, 20)


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({}, (180, 120)),
        ({"size": "auto"}, (180, 120)),
        ({"size": None}, (180, 120)),
        ({"size": "200x100"}, (200, 100)),
        ({"size": "1024x768"}, (1024, 768)),
        ({"size": "45x30"}, (45, 30)),
        ({"size": "91x61"}, (91, 61)),
        ({"extra_body": {"scale_factor": 1}}, (90, 60)),
        ({"extra_body": {"scale_factor": 1.5}}, (135, 90)),
        ({"extra_body": {"scale_factor": 4}}, (360, 240)),
        ({"size": "auto", "extra_body": {"scale_factor": 3}}, (270, 180)),
        ({"size": "100x100", "extra_body": {"scale_factor": 4}}, (100, 100)),
        ({"size": "400x50", "extra_body": {"scale_factor": 1, "size_mode": "stretch"}}, (400, 50)),
    ],
    ids=str,
)
def test_size(edit: Edit, asked: dict[str, Any], wanted: tuple[int, int]) -> None:
    """The picture has the size that was asked for, else the one that follows from the factor."""
    response = edit(image=striped(), prompt="", model="lanczos-bp", response_format="b64_json", **asked)

    assert picture(response).size == wanted
    assert response.size == f"{wanted[0]}x{wanted[1]}"


@pytest.mark.parametrize(
    ("mode", "background", "left", "top"),
    [
        ("crop", "auto", GREEN, GREEN),
        ("stretch", "auto", RED, GREEN),
        ("pad", "auto", RED, None),
        ("pad", "opaque", RED, WHITE),
        ("pad", "#102030", RED, (16, 32, 48)),
    ],
)
def test_size_mode(edit: Edit, mode: str, background: str, left: tuple[int, ...], top: tuple[int, ...] | None) -> None:
    """Another aspect ratio is reached by cutting, by filling up or by distorting, as `size_mode` says."""
    response = edit(
        image=striped(),
        prompt="",
        model="lanczos-bp",
        size="120x120",
        extra_body={"size_mode": mode, "background": background},
        response_format="b64_json",
    )

    made = picture(response).convert("RGBA")
    assert made.size == (120, 120)
    assert near(made.getpixel((60, 60)), (*GREEN, 255))
    # Cut evenly, 30 columns of red are left, and 40 otherwise.
    assert near(made.getpixel((34, 60)), (*left, 255))
    assert near(made.getpixel((4, 60)), (*RED, 255))
    assert near(made.getpixel((115, 60)), (*BLUE, 255))
    above = made.getpixel((60, 6))
    assert isinstance(above, tuple)
    assert above[3] == 0 if top is None else near(above, (*top, 255))


def test_a_smaller_size_is_said(edit: Edit) -> None:
    """A size below the picture's own is delivered, with a warning."""
    response = edit(image=striped(), prompt="", model="lanczos-bp", size="30x20")

    assert picture(response).size == (30, 20)
    assert any("smaller than the image (90x60)" in warning for warning in metadata(response)["warnings"])


@pytest.mark.parametrize("wanted", ["jpeg", "webp", "avif"])
def test_output_compression(edit: Edit, wanted: str) -> None:
    """A higher `output_compression` is a better and a larger picture."""
    sizes = [
        len(
            delivered(
                edit(
                    image=coffee(150, 100),
                    prompt="",
                    model="lanczos-bp",
                    output_format=wanted,
                    output_compression=quality,
                    response_format="b64_json",
                )
            )
        )
        for quality in (0, 40, 80, 100)
    ]

    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(
    ("background", "wanted", "colour"),
    [
        ("auto", "png", None),
        ("transparent", "png", None),
        ("transparent", "webp", None),
        ("opaque", "png", WHITE),
        ("#c80000", "png", (200, 0, 0)),
        ("#C80000", "webp", (200, 0, 0)),
        ("auto", "jpeg", WHITE),
        ("opaque", "jpeg", WHITE),
        ("#c80000", "jpeg", (200, 0, 0)),
    ],
)
def test_background(edit: Edit, background: str, wanted: str, colour: tuple[int, int, int] | None) -> None:
    """Transparency is kept, or flattened onto white or a colour; the answer says which."""
    response = edit(
        image=half_transparent(),
        prompt="",
        model="lanczos-bp",
        background=background,
        output_format=wanted,
        response_format="b64_json",
    )

    made = picture(response)
    left = made.convert("RGBA").getpixel((20, 40))
    assert isinstance(left, tuple)
    if colour is None:
        assert left[3] == 0
        assert response.background == "transparent"
    else:
        assert near(left, (*colour, 255))
        assert not made.has_transparency_data
        assert response.background == "opaque"
    assert near(made.convert("RGB").getpixel((100, 40)), GREEN)


def test_metadata(edit: Edit) -> None:
    """The answer says which model ran, where, for how much, and that resampling is not the real thing."""
    response = edit(
        image=flat(20, 10),
        prompt="a red wall",
        model="clarity-upscaler",
        quality="high",
        user="someone",
        extra_body={"creativity": 0.9},
    )

    assert response.model_extra
    assert response.model_extra["id"].startswith("img_")
    assert response.created > 1_700_000_000
    assert response.usage is None
    told = metadata(response)
    attempt = told["attempts"][0]
    assert told["model"] == "clarity-upscaler"
    assert told["executed_model"] == "lanczos-bp"
    assert told["provider"] == "local"
    assert (told["cost"], told["cost_currency"]) == (0, "USD")
    assert (attempt["provider"], attempt["model"], attempt["outcome"]) == ("local", "lanczos-bp", "ok")
    assert "adds no detail" in told["warnings"][0]
    for ignored in ("prompt", "quality", "user", "creativity"):
        assert any(warning.startswith(f"{ignored} was ignored") for warning in told["warnings"]), ignored


def test_no_warnings(edit: Edit) -> None:
    """A call of which nothing is lost has no warning."""
    assert metadata(edit(image=flat(20, 10), prompt="", model="lanczos-bp"))["warnings"] == []


def test_equal_pictures_are_said(edit: Edit) -> None:
    """Resampling has no chance in it, and whoever asks for several pictures is told that they are equal."""
    response = edit(image=flat(20, 10), prompt="", model="lanczos-bp", n=2)

    assert delivered(response, 0) == delivered(response, 1)
    assert any("identical" in warning for warning in metadata(response)["warnings"])
