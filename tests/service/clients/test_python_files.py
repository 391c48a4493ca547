"""The Python SDK's ways to give it a picture: each comes through as the same picture."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateways import Edit
from tests.support.photo import BLUE, flat, near, picture

PNG = flat(40, 30, BLUE)
WEBP = flat(40, 30, BLUE, "WEBP")
JPEG = flat(40, 30, BLUE, "JPEG")

Encoding = Callable[[Path], Any]

ENCODINGS: dict[str, Encoding] = {
    "bytes": lambda path: PNG,
    "BytesIO": lambda path: io.BytesIO(PNG),
    "path": lambda path: path,
    "name and bytes": lambda path: ("blue.png", PNG),
    "name and BytesIO": lambda path: ("blue.png", io.BytesIO(PNG)),
    "name and path": lambda path: ("other.png", path),
    "name, bytes, type": lambda path: ("blue.png", PNG, "image/png"),
    "name, bytes, type, headers": lambda path: ("blue.png", PNG, "image/png", {"x-part": "1"}),
    "no name": lambda path: (None, PNG, "image/png"),
    "no type": lambda path: ("blue", PNG, None),
    "wrong type": lambda path: ("blue.png", JPEG, "image/png"),
    "wrong name": lambda path: ("blue.txt", WEBP),
    "a type that is no picture": lambda path: ("blue.png", PNG, "text/plain"),
    "octet-stream": lambda path: ("blue.webp", WEBP, "application/octet-stream"),
    "a name with quotes and umlauts": lambda path: ('ein "blaues" Fläschchen.png', PNG),
    "list of one": lambda path: [PNG],
    "tuple in a list": lambda path: [("blue.png", PNG, "image/png")],
    "path in a list": lambda path: [path],
    "gif": lambda path: flat(40, 30, BLUE, "GIF"),
    "avif": lambda path: flat(40, 30, BLUE, "AVIF"),
}


@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS.keys())
def test_encoding(edit: Edit, encoding: Encoding, tmp_path: Path) -> None:
    """Whatever the SDK makes of the picture on the wire, it is read as the picture that it is."""
    path = tmp_path / "blue.png"
    path.write_bytes(PNG)

    response = edit(image=encoding(path), prompt="", model="lanczos-bp", response_format="b64_json")

    made = picture(response)
    assert made.size == (80, 60)
    assert near(made.convert("RGB").getpixel((40, 30)), BLUE)


def test_open_file(edit: Edit, tmp_path: Path) -> None:
    """An open file is read, and the caller still closes it."""
    path = tmp_path / "blue.jpg"
    path.write_bytes(JPEG)

    with path.open("rb") as file:
        response = edit(image=file, prompt="", model="lanczos-bp", response_format="b64_json")
        assert not file.closed

    assert picture(response).size == (80, 60)


def test_open_file_in_a_list(edit: Edit, tmp_path: Path) -> None:
    """An open file may stand in a list too."""
    path = tmp_path / "blue.jpg"
    path.write_bytes(JPEG)

    with path.open("rb") as file:
        response = edit(image=[file], prompt="", model="lanczos-bp", response_format="b64_json")

    assert picture(response).size == (80, 60)


@pytest.mark.parametrize("prompt", ["", "ein Café in Zürich, 喫茶店 ☕", 'a "quoted"\r\nline', "x" * 32_000])
def test_prompt(edit: Edit, prompt: str) -> None:
    """A prompt may be empty, in any language, of several lines and 32,000 characters long."""
    assert picture(edit(image=PNG, prompt=prompt, response_format="b64_json")).size == (80, 60)


def test_no_model(edit: Edit) -> None:
    """Without a model it is the one that the config names."""
    response = edit(image=PNG, prompt="", model=None)

    assert response.model_extra
    assert response.model_extra["metadata"]["model"] == "clarity-upscaler"
