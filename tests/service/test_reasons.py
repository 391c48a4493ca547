"""When nothing can serve, the answer begins with what can be done about it; over HTTP, with one provider's key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.world import World, world


@pytest.fixture(scope="module")
def with_fal() -> Iterator[World]:
    with world("fal") as there:
        yield there


def test_a_provider_without_its_key(with_fal: World) -> None:
    """`replicate/clarity-upscaler` says which variable is not set before it says anything else."""
    answer = with_fal.edit(model="replicate/clarity-upscaler")
    message = answer.body["error"]["message"]
    assert (answer.status, answer.code) == (400, "no_route")
    assert "can serve this request: replicate is off: REPLICATE_API_TOKEN is not set. fal, segmind" in message
    assert message.count("as the request asks") == 1
    assert with_fal.taken("fal") == 0


def test_a_picture_that_cannot_be_uploaded() -> None:
    """What happened and at which host stands in the story of the attempts, and nothing more of its address."""
    with world("segmind", environ={"DARKROOM_PROVIDERS__SEGMIND__UPLOAD_URL": "https://nobody.invalid/up"}) as there:
        answer = there.edit(retries=0)
    assert (answer.status, answer.code) == (503, "upstream_unavailable")
    assert answer.attempts[0]["message"] == (
        "segmind: a picture could not be uploaded (no connection to nobody.invalid: the name could not be resolved)"
    )
