"""What the dry run promises is delivered: our limits are checked on the plan, before anything is bought."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.simulators.common import size, tiny
from tests.support.world import World, world

# Callers may send 24 x 16 and no more; what is made of it may be larger.
SMALL = {"DARKROOM_GATEWAY__MAX_INPUT_PIXELS": "400"}
THREE = ("fal", "replicate", "segmind")


@contextmanager
def there(*names: str, **environ: str) -> Iterator[World]:
    """A world in which callers may send little."""
    given = {f"DARKROOM_GATEWAY__{name}": value for name, value in environ.items()}
    with world(*names, environ={**SMALL, **given}) as one:
        yield one


@pytest.mark.parametrize("first", THREE)
def test_a_result_larger_than_what_callers_may_send(first: str) -> None:
    """The picture is bought once, of the first route, and is what was promised."""
    with there(*THREE) as one:
        promised = one.dry_run(width="48", height="32")
        answer = one.edit(tiny(24, 16), routing=f'{{"order": ["{first}"]}}', size="48x32")

        assert first in {candidate["provider"] for candidate in promised["candidates"]}
        assert (answer.status, answer.story) == (200, [f"{first} ok"])
        assert [size(data) for data in answer.images] == [(48, 32)]
        assert sum(one.billed(name) for name in THREE) == 1


@pytest.mark.system
def test_a_decoder_that_never_gets_done() -> None:
    """Its time is ours: the picture is delivered as it came, with a warning, and nothing else is bought."""
    with there("fal", "replicate", IMAGE_ISOLATION="process", IMAGE_TIMEOUT_S="0.01") as one:
        answer = one.edit(tiny(24, 16), output_format="jpeg", routing='{"order": ["fal"]}')

        assert (answer.status, answer.story) == (200, ["fal ok"])
        assert answer.body["output_format"] == "png"
        [warning] = [text for text in answer.body["metadata"]["warnings"] if "as the provider made it" in text]
        assert "jpeg" in warning
        assert (one.billed("fal"), one.billed("replicate")) == (1, 0)


def test_a_side_that_the_format_does_not_take() -> None:
    """16,384 pixels are too many for a WebP, and that is told before anything is bought."""
    with there("fal", "replicate", MAX_INPUT_PIXELS="10000") as one:
        wide = tiny(2048, 2)
        refused = one.edit(wide, size="16384x16", output_format="webp")
        taken = one.edit(wide, size="16384x16", output_format="png")

        assert (refused.status, refused.code) == (400, "output_too_large"), refused.text
        assert "16383 pixels a side" in refused.body["error"]["message"]
        assert taken.status == 200, taken.text
        assert one.taken("fal") + one.taken("replicate") == 1
