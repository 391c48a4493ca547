"""A process dies while a route that drops transparency works on a transparent picture: the next one finishes it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from PIL import Image as Pillow
from sqlalchemy import text

from gateway.jobs.recovery import RecoveryLoop
from normalization.images.sniff import scan
from normalization.images.transform import decoded
from normalization.values import JoinAlpha, Transcode
from tests.support.ledgers import order, outlast
from tests.support.pictures import encoded
from tests.unit.gateway.jobs.scripted import candidates, png, provider
from tests.unit.gateway.jobs.test_manager import World, soon, until, world

__all__ = ["world"]


async def test_the_alpha_channel_outlives_its_process(world: World) -> None:
    """It is joined to the picture, and is in the ledger no more once that is made."""
    sim = provider("sim", png(), png())
    sim.hold = asyncio.Event()
    first = await world.process(sim)
    channel = encoded(Pillow.new("L", (4, 4), 77), "png")
    [one] = candidates(["sim"])
    finish = (JoinAlpha(alpha=channel), Transcode(format="png"))
    job_ref = await first.place(order(idempotency_key="k"), [replace(one, plan=replace(one.plan, finish=finish))])
    await until(lambda: sim.waited, "at work")
    await world.kill(first)

    second = await world.process(sim)
    await outlast(second.ledger)
    await RecoveryLoop(second, lease_s=1.0).adopt_orphans()
    sim.hold.set()
    [made] = (await second.wait(job_ref.id, soon())).images

    assert made.image.header.alpha
    assert decoded(scan(made.image.data)).getpixel((3, 3))[3] == 77  # type: ignore[index]
    statement = text("SELECT making FROM attempts")
    [kept] = await second.ledger.database.read(lambda connection: connection.execute(statement).scalars().all())
    assert [step["alpha"] for step in json.loads(kept)["finish"] if step["step"] == "JoinAlpha"] == [None]
