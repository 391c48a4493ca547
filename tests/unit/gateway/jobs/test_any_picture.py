"""Random pictures of every kind through every route: they come out as their senders meant them.

What they were meant to look like is computed from the samples that were written (tests.support.strangers). A provider
is played as the simulators play it: it enlarges what it is sent by the factor that it is sent, knows three channels
where its route says that it drops transparency, and never looks at the plan.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import pytest
from PIL import Image as Pillow

from gateway.imaging.pool import ImagePool
from gateway.jobs import postprocess
from gateway.jobs.sending import ready
from gateway.ledger.records import OutputSpec
from gateway.routing.selection import Candidate, RouteHealth, choose
from gateway.settings.loader import SHIPPED, load
from normalization.images.encode import losses
from normalization.values import Image, ImageRequest, Plan, Value
from providers.base import Readiness
from tests.support.likeness import Way, Wish, assert_alike, expected
from tests.support.pictures import SECRET
from tests.support.strangers import KINDS, Stranger, stranger

MODELS = load(SHIPPED, {}).models
READY = RouteHealth(readiness=Readiness.READY)
# Under these names a factor is sent, in a number or in a word such as 4x. None: the model has one of its own.
FACTORS = ("scale_factor", "upscale_factor", "scale")
OWN_FACTOR = 2.0


def pictures_in(value: Value | dict[str, Value]) -> Iterator[Image]:
    """Every picture in a payload."""
    if isinstance(value, Image):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from pictures_in(inner)


def factor_in(payload: dict[str, Value]) -> float:
    """By how much a provider that is sent this enlarges."""
    found = next((payload[name] for name in FACTORS if name in payload), OWN_FACTOR)
    return 1.0 if found == "None" else float(str(found).removesuffix("x"))


def provided(candidate: Candidate) -> tuple[bytes, tuple[int, int]]:
    """What the provider of a route makes of the payload, and its size."""
    payload = dict(candidate.plan.calls[0])
    [sent] = {id(image): image for image in pictures_in(payload)}.values()
    assert SECRET not in sent.data
    assert sent.header.orientation == 1
    assert sent.format in candidate.route.input.formats
    factor = factor_in(payload)
    with Pillow.open(BytesIO(sent.data)) as opened:
        size = (max(1, round(opened.width * factor)), max(1, round(opened.height * factor)))
        mode = "RGBA" if candidate.route.alpha == "keep" and opened.has_transparency_data else "RGB"
        larger = opened.convert(mode).resize(size, Pillow.Resampling.LANCZOS)
    out = BytesIO()
    larger.save(out, "png")
    return out.getvalue(), size


async def read(imaging: ImagePool, data: bytes) -> tuple[Image, tuple[str, ...]]:
    """A picture as it comes through the door, and what it lost there."""
    image = await imaging.inspect(data)
    return await imaging.prepare(image), losses(image.header)


def wished(draw: random.Random, model: str) -> dict[str, Any]:
    """What a caller may ask beside the picture."""
    asked: dict[str, Any] = {"prompt": "a cup", "allow_degraded": True}
    fmt = draw.choice(("png", "png", "jpeg", "webp", "avif", "gif"))
    asked["output_format"] = fmt
    if fmt not in ("png", "gif"):
        asked["output_compression"] = draw.choice((90, 100))
    asked["background"] = draw.choice(("auto", "transparent", "opaque", "#3366cc"))
    if asked["background"] == "transparent" and fmt == "jpeg":
        del asked["background"]
    if draw.random() < 0.5:
        asked["size"] = f"{draw.randrange(16, 68)}x{draw.randrange(16, 68)}"
        asked["size_mode"] = draw.choice(("crop", "pad", "stretch", "fit"))
    elif MODELS[model].scaled_by is not None:
        asked["scale_factor"] = draw.choice((1, 1.3, 2, 3, 4))
    return asked


def told(plan: Plan, came: Stranger, notes: tuple[str, ...]) -> None:
    """Assert that what 8-bit sRGB does not hold is told, and nothing else."""
    said = "\n".join((*plan.notes, *notes))
    assert ("to 8 bits" in said) == (came.bits > 8)
    assert ("from CMYK" in said) == came.cmyk
    assert ("from another colour space" in said) == came.foreign


async def through(imaging: ImagePool, model: str, came: Stranger, asked: dict[str, Any]) -> int:
    """Send a picture through all routes of a model, and hold what comes against what was meant; how many served."""
    image, notes = await read(imaging, came.data)
    request = ImageRequest(
        model=model, images=(image,), params=asked, extra={}, provider_options={}, seed=1, notes=notes
    )
    conditions = dict.fromkeys(MODELS[model].routes, READY)
    choice = await ready(choose(MODELS[model], request, conditions), request, imaging, "")
    for candidate in choice.candidates:
        plan = candidate.plan
        data, size = provided(candidate)
        made = OutputSpec(output=plan.output, finish=plan.finish)
        result = await imaging.recognise(data)
        [done], said = await postprocess.finish(imaging, [result], made)
        where = f"{model} by {candidate.route.name}, {asked}, {came.story}: {plan.notes} {said}"
        told(plan, came, said)
        preferences = Wish(
            format=asked["output_format"],
            quality=asked.get("output_compression"),
            background=asked.get("background", "auto"),
            size=asked.get("size"),
            mode=asked.get("size_mode", "crop"),
            factor=None if MODELS[model].scaled_by is None else asked.get("scale_factor"),
        )
        way: Way = "beside" if MODELS[model].scaled_by is not None else "lost"
        way = "kept" if candidate.route.alpha == "keep" else way
        meant = expected(came.seen, size, preferences, plan.delivered, way=way)
        assert_alike(done, meant, preferences, where)
        asked_for = preferences.background in ("auto", "transparent")
        if came.transparent and asked_for and (way == "lost" or preferences.format == "jpeg"):
            assert any("Transparent areas were flattened" in note for note in (*plan.notes, *said)), where
        if not came.transparent:
            assert not any("ransparen" in note for note in (*plan.notes, *said)), where
    return len(choice.candidates)


async def everywhere(imaging: ImagePool, kind: str, seed: int) -> None:
    """One picture through all routes of all models, each with a wish of its own."""
    came = stranger(kind, seed)
    served = 0
    for model in sorted(MODELS):
        draw = random.Random(f"{kind} {seed} {model}")
        served += await through(imaging, model, came, wished(draw, model))
    # Some cannot serve each wish; most can.
    assert served >= 12


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_any_picture(imaging: ImagePool, kind: str) -> None:
    """One of a kind."""
    await everywhere(imaging, kind, 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_many_pictures(imaging: ImagePool, kind: str) -> None:
    """A dozen of a kind."""
    for seed in range(2, 14):
        await everywhere(imaging, kind, seed)
