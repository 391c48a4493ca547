"""A size of another aspect ratio: what is delivered, and what the caller is told of it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.gateways import Edit
from tests.support.photo import flat, picture
from tests.support.running import Served


def about_the_shape(response: Any) -> list[str]:
    """The warnings that are about aspect ratios."""
    return [warning for warning in response.metadata["warnings"] if "aspect ratio" in warning]


@pytest.mark.parametrize(
    ("asked", "delivered", "said"),
    [
        ({"size": "160x160"}, "160x160", "of 200x160, 20 pixels at the left and 20 at the right were cropped"),
        ({"size": "160x160", "extra_body": {"size_mode": "pad"}}, "160x160", "covers 160x128 of it, and 16 pixels"),
        ({"size": "160x160", "extra_body": {"size_mode": "stretch"}}, "160x160", "the height by 25 % more"),
        ({"size": "160x160", "extra_body": {"size_mode": "fit"}}, "160x128", None),
        ({"size": "40x160", "extra_body": {"size_mode": "fit", "scale_factor": 4}}, "40x32", None),
        ({"size": "160x128"}, "160x128", None),
    ],
    ids=str,
)
def test_another_aspect_ratio(
    edit: Edit, server: Served, asked: dict[str, Any], delivered: str, said: str | None
) -> None:
    """Dry run, answer and picture agree on the size, and what happened to the shape is told in pixels."""
    response = edit(image=flat(100, 80), prompt="", model="lanczos-bp", response_format="b64_json", **asked)

    made = picture(response)
    assert f"{made.width}x{made.height}" == delivered
    assert response.size == delivered
    notes = about_the_shape(response)
    assert len(notes) == (said is not None)
    assert said is None or said in notes[0]
    fields = {"model": "lanczos-bp", "width": "100", "height": "80", "size": asked["size"]}
    fields |= {name: str(value) for name, value in asked.get("extra_body", {}).items()}
    run = httpx.post(f"{server.base_url}/images/edits?dry_run=true", files={n: (None, v) for n, v in fields.items()})
    (candidate,) = run.json()["candidates"]
    assert candidate["delivered"] == delivered
    assert [note for note in candidate["warnings"] if "aspect ratio" in note] == notes
