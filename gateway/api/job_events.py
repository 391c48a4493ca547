"""A job as server-sent events: each time that there is something new of it, and at its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from starlette.requests import Request

from gateway.api.client import disconnected
from gateway.api.job_body import Addresses, room_for, whole
from gateway.http.admission import Overloaded
from gateway.http.errors import ApiError
from gateway.http.streaming import Events
from gateway.jobs.manager import Job
from gateway.ledger.records import JobRow
from gateway.ledger.store import LedgerDown
from gateway.state import State
from gateway.storage import StoreFailed
from providers.http.pieces import Piece

# How often the ledger is asked for a job that another process works on, in seconds.
_LOOK_S = 1.0


def follow(request: Request, state: State, job: str) -> Events:
    """The stream of one job. It ends with the job, when the client leaves, and when this process ends."""
    return Events(
        _events(request, state, job, Addresses.of(request, state)),
        keep_alive=state.config.gateway.keep_alive_s,
        headers={"x-darkroom-job": job},
        gone=lambda: False,  # the events themselves end then
        closed=lambda whole: None,
    )


async def wait_for_end(request: Request, state: State, job: str, seconds: float) -> bool:
    """Wait for a job's end: so long at most, no longer than this process serves; false once the client has left."""
    until = state.jobs.clock.now() + seconds
    leaving = asyncio.create_task(disconnected(request))
    waits = [leaving, asyncio.create_task(state.jobs.ended(job, until)), asyncio.create_task(_away(state, job).wait())]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        return not leaving.done()
    finally:
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def _events(request: Request, state: State, job: str, at: Addresses) -> AsyncIterator[Sequence[Piece]]:
    gone = asyncio.create_task(disconnected(request))
    shown: list[Piece] = []
    stack = contextlib.ExitStack()
    try:
        while not gone.done():
            live = state.jobs.live(job)
            # Taken before the ledger is read: what comes after is not missed.
            moved, away = live.moved if live else asyncio.Event(), _away(state, job)
            now, ended = shown, False
            # It may be back, or there may be room, at the next look.
            with contextlib.suppress(LedgerDown, StoreFailed, Overloaded):
                row = _fresh(await found(state, job), live)
                async with room_for(state, row) as let_go:
                    stack.callback(let_go)
                    now = [f"event: image.job.{row.state}\ndata: ".encode(), *await whole(state, row, at)]
                ended = row.ended
            if now != shown:
                shown = now
                yield [*now, b"\n\n"]
            if ended or away.is_set():
                return
            await _any_of(gone, moved, away)
    finally:
        gone.cancel()
        stack.close()


async def found(state: State, job: str) -> JobRow:
    """A job by its id: also one of this process of which nothing is written yet. Raises ApiError 404, LedgerDown."""
    row = await state.jobs.ledger.read(job)
    if row is not None:
        return row
    if (live := state.jobs.live(job)) is not None:
        return JobRow(order=live.order, state="queued", cost=0)
    raise no_such_job()


def no_such_job() -> ApiError:
    """The 404 for what is not there, and for what is another caller's."""
    return ApiError(404, "There is no such job, or not any more.", param="id", code="job_not_found")


def _away(state: State, job: str) -> asyncio.Event:
    """What sends away whoever waits for a job: one that is worked on here may yet end while this process leaves."""
    return state.jobs.let_go if state.jobs.live(job) else state.jobs.leaving


def _fresh(row: JobRow, live: Job | None) -> JobRow:
    """With the progress of this moment, where the job is worked on here: in the ledger it is a little older."""
    return replace(row, progress=round(live.book.share, 3)) if live and live.book.share and not row.ended else row


async def _any_of(gone: asyncio.Task[None], *events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait({gone, *waits}, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
