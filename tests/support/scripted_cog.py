"""A Cog container of the real model as a user would run it on a GPU: scripted, over real HTTP, and it writes down what
reaches it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pybase64
from anyio.from_thread import start_blocking_portal
from starlette.responses import Response

from tests.simulators.common import first_of
from tests.support.fake_cog import FakeCog, data_uri, served, succeeded
from tests.support.photo import opened, saved

INPUTS = (
    "image", "prompt", "negative_prompt", "scale_factor", "creativity", "resemblance", "dynamic", "num_inference_steps",
    "seed", "sd_model", "scheduler", "sharpen", "tiling_width", "tiling_height", "downscaling",
    "downscaling_resolution", "handfix", "pattern", "output_format",
)  # fmt: skip


async def enlarge(cog: FakeCog, job: str, given: dict[str, Any]) -> Response:
    """Answer with the picture enlarged, as it is or downscaled before: in a list of one, as the real container does."""
    sent = opened(pybase64.b64decode(given["image"].partition(",")[2]))
    first = first_of(given)
    before = 1 if first is None else first / max(sent.size)
    width, height = (round(round(side * before) * given["scale_factor"]) for side in sent.size)
    return succeeded([data_uri(saved(sent.resize((width, height))))])


def announced(*more: str) -> dict[str, Any]:
    """The document of a container, which announces the inputs of the model and `more`."""
    properties: dict[str, Any] = {name: {} for name in (*INPUTS, *more)}
    return {"info": {"title": "Cog"}, "components": {"schemas": {"Input": {"properties": properties}}}}


@contextmanager
def container(*more: str) -> Iterator[FakeCog]:
    """Serve one, in a thread of its own. `more` are inputs that it announces beside those of the model."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(served(FakeCog(play=enlarge, schema=announced(*more)))) as cog,
    ):
        yield cog


def as_workers(*cogs: FakeCog) -> str:
    """The containers as the setting DARKROOM_PROVIDERS__LOCAL__WORKERS names them."""
    return json.dumps([cog.url for cog in cogs])


def last_input(cog: FakeCog) -> dict[str, Any]:
    """What the last job was given."""
    found: dict[str, Any] = cog.bodies[-1]["input"]
    return found


def picture_of(given: dict[str, Any]) -> bytes:
    """The bytes of the picture that a job was given."""
    return base64.b64decode(given["image"].partition(",")[2], validate=True)
