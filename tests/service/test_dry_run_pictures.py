"""What a dry run says of pictures: what would be sent, and what is done to the result."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.support.world import World, world


@pytest.fixture(scope="module")
def there() -> Iterator[World]:
    with world("fal") as one:
        yield one


def dry(there: World, picture: Image.Image, **fields: str) -> Any:
    """The one candidate for a picture."""
    out = io.BytesIO()
    picture.save(out, "png")
    answer = httpx.post(
        f"{there.url}/v1/images/edits?dry_run=true",
        files={"image": ("a.png", out.getvalue())},
        data={"model": "clarity-upscaler", "prompt": "a cup", **fields},
    )
    assert answer.status_code == 200, answer.text
    return next(one for one in answer.json()["candidates"] if one["provider"] == "fal")


def test_transparency_that_is_put_back(there: World) -> None:
    """The step has its name, and no bytes; the picture that is sent has no alpha channel."""
    found = dry(there, Image.new("RGBA", (64, 48), (10, 20, 30, 128)))

    assert [step["step"] for step in found["finish"]] == ["join_alpha", "transcode"]
    assert json.dumps(found["finish"][0]) == '{"step": "join_alpha"}'


def test_what_is_sent_is_what_is_shown(there: World) -> None:
    """By its hash: a dry run makes the picture ready as a call does."""
    picture = Image.new("RGBA", (64, 48), (10, 20, 30, 128))
    flat = dry(there, picture, background="#102030")["payload"]["image_url"]["picture"]
    split = dry(there, picture)["payload"]["image_url"]["picture"]

    assert flat["sha256"] != split["sha256"]
