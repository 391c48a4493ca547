"""Rows that a newer version wrote, read by this one: during a rolling update both are at the same ledger."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select, update

from gateway.database.schema import ATTEMPTS
from gateway.imaging.pool import ImagePool
from gateway.jobs.postprocess import finish
from gateway.ledger.records import OutputSpec, StoredImage, handle_of, handle_to_json, picture_of
from normalization.images.sniff import sniff
from normalization.values import Header, Image, JoinAlpha, Resize, Size, Transcode
from providers.base import Handle
from tests.support.ledgers import attempted, ledger, order
from tests.support.photo import flat

DATA = flat(6, 4)
SIZE = Size(width=6, height=4)
MAKING = OutputSpec(
    output=SIZE,
    finish=(
        JoinAlpha(alpha=b"\x89PNG", black=True),
        Resize(size=SIZE, mode="fit", tell=True),
        Transcode(format="png", quality=7, density=(300.0, 150.0)),
    ),
    notes=("It is small.",),
    seed=7,
)
HANDLE = Handle(provider="fal", id="r-1", data={"status_url": "https://queue.fal.run/r-1"})
SHARPEN = {"step": "Sharpen", "radius": 2, "alpha": [1]}


def newer(value: Any) -> Any:
    """The same JSON with a field in every object that this version does not know."""
    if isinstance(value, dict):
        return {**{name: newer(inner) for name, inner in value.items()}, "vignette": {"radius": 3}}
    return [newer(inner) for inner in value] if isinstance(value, list) else value


def test_a_picture() -> None:
    """What this version knows of it is read."""
    header = Header(format="png", width=6, height=4, density=(300.0, 150.0), bits=16)
    for known in (header, sniff(DATA)):
        picture = StoredImage(image=Image(data=DATA, header=known), file="a.png", seed=5)
        assert picture_of(newer(picture.to_json()), DATA) == picture


def test_a_call() -> None:
    """Likewise, with its sizes and its steps."""
    assert OutputSpec.from_json(newer(MAKING.to_json())) == MAKING


def test_a_handle() -> None:
    """Likewise."""
    assert handle_of({**handle_to_json(HANDLE), "vignette": 3}) == HANDLE


async def test_a_step_that_is_not_known(imaging: ImagePool) -> None:
    """The picture is paid for and is finished without it, and that is told; the steps that are known are done."""
    kept = MAKING.to_json()
    making = OutputSpec.from_json({**kept, "finish": [SHARPEN, *kept["finish"][1:]]})
    [done], notes = await finish(imaging, [Image(data=DATA, header=sniff(DATA))], making)

    assert making.finish == MAKING.finish[1:]
    assert (done.format, done.width, done.height) == ("png", 6, 4)
    assert any("does not support the step Sharpen and skipped it" in note for note in notes)


async def test_a_row_of_the_ledger(tmp_path: Path) -> None:
    """An attempt that is taken over while it goes on."""
    asked = order()
    sent = attempted(asked.id, time.time(), making=MAKING)

    def rewrite(connection: Connection) -> None:
        row = connection.execute(select(ATTEMPTS.c.making, ATTEMPTS.c.handle)).one()
        changed = {"making": newer(row.making), "handle": {**row.handle, "vignette": 3}}
        connection.execute(update(ATTEMPTS).values(**changed))

    async with ledger(tmp_path) as opened:
        await opened.sending(asked, sent, [], first=True)
        await opened.submitted(sent.id, HANDLE, time.time())
        await opened.database.write(rewrite)
        (found,) = await opened.attempts(asked.id)

    assert (found.making, found.handle) == (MAKING, HANDLE)
