"""The failover loop, over providers that do as the test says: what each error means stands in its class alone."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from gateway.api.problems import failed, no_route
from gateway.imaging.pool import ImagePool
from gateway.jobs.context import Recorder
from gateway.jobs.errors import JobResult
from gateway.ledger.records import AllFailed, AttemptRow, Json, StoredImage
from gateway.ledger.store import LedgerDown
from gateway.routing.selection import Choice, Excluded
from gateway.storage import StorageError
from gateway.telemetry import metrics
from normalization.values import Image
from providers.errors import (
    Blocked,
    Crowded,
    Expired,
    Failed,
    ProviderError,
    Rejected,
    Throttled,
    Undecodable,
    Unfetched,
    Unfinished,
    Unknown,
    Unreached,
    Unusable,
)
from tests.support.clock import Skipping
from tests.unit.gateway.jobs.scripted import MODEL, ROUTE, Scripted, Shelf, candidates, executing, png, provider

ERRORS = (
    Rejected,
    Blocked,
    Throttled,
    Crowded,
    Unusable,
    Unreached,
    Unknown,
    Failed,
    Undecodable,
    Expired,
    Unfinished,
    Unfetched,
)


async def run(imaging: ImagePool, *providers: Scripted, n: int = 1, deadline_s: float = 30) -> JobResult:
    """Execute over these providers in their order."""
    clock = Skipping()
    executor = executing(imaging, *providers, clock=clock)
    deadline = clock.after(deadline_s)
    return await executor.run("img_1", candidates([p.name for p in providers], n=n), deadline, Recorder())


@pytest.mark.parametrize("error", ERRORS)
async def test_the_class_decides(imaging: ImagePool, error: type[ProviderError]) -> None:
    """After an error the next route is tried exactly if its class says so; the attempts tell the story."""
    first, second = provider("first", *(error("no luck") for _ in range(3))), provider("second", png())
    if not error.next_route:
        with pytest.raises(AllFailed) as caught:
            await run(imaging, first, second, deadline_s=0.2)
        assert [attempt.outcome for attempt in caught.value.attempts] == [error.__name__.lower()]
        assert not second.jobs
        return
    finished = await run(imaging, first, second)

    assert [attempt.outcome for attempt in finished.attempts] == [error.__name__.lower(), "ok"]
    assert finished.served.provider == "second"


async def test_only_what_is_missing_moves_on(imaging: ImagePool) -> None:
    """Of n pictures, those that failed are bought again elsewhere, with their own payload; the others are kept."""
    first = provider("first", png(), Failed("x"), png())
    second = provider("second", png())
    finished = await run(imaging, first, second, n=3)

    assert len(finished.images) == 3
    assert [job.payload for job in second.jobs] == [{"number": 1}]
    assert not finished.partial


async def test_unfinished_jobs_are_waited_for(imaging: ImagePool) -> None:
    """A job that nobody can cancel gets the rest of the request's time after its attempt's; nothing else is bought."""
    slow, second = provider("slow", Unfinished("goes on"), png()), provider("second", png())
    finished = await run(imaging, slow, second, deadline_s=0.3)

    assert [attempt.outcome for attempt in finished.attempts] == ["ok"]
    assert len(slow.jobs) == 1
    assert not second.jobs


async def test_each_picture_for_itself(imaging: ImagePool) -> None:
    """A picture whose outcome is unknown is not bought again; one beside it that failed is tried elsewhere."""
    first = provider("first", Unknown("lost"), Failed("x"), png())
    second = provider("second", png())
    finished = await run(imaging, first, second, n=3)

    assert [job.payload for job in second.jobs] == [{"number": 1}]
    assert len(finished.images) == 2
    assert finished.partial


async def test_the_notes_of_every_route(imaging: ImagePool) -> None:
    """Where two routes gave the pictures, what was lost on either is told, once."""
    first, second = provider("first", png(), Failed("x")), provider("second", png())
    routes = [
        replace(candidate, plan=replace(candidate.plan, notes=("both", candidate.route.name)))
        for candidate in candidates(["first", "second"], n=2)
    ]
    deadline = asyncio.get_running_loop().time() + 30

    assert (await executing(imaging, first, second).run("img_1", routes, deadline, Recorder())).notes == (
        "both",
        "first",
        "second",
    )


async def test_some_stay_missing(imaging: ImagePool) -> None:
    """What was paid is delivered even when others stay missing, and the result says that it is partial."""
    finished = await run(imaging, provider("only", png(), Failed("x")), n=2)

    assert len(finished.images) == 1
    assert finished.partial


async def test_cost(imaging: ImagePool) -> None:
    """The provider's own bill counts where there is one, else the estimate; what was not billed costs nothing."""
    bill = await run(imaging, provider("a", Unreached("x")), provider("b", png(), cost=1234))
    guess = await run(imaging, provider("a", Undecodable("x")), provider("b", png()))

    assert [(a.cost, a.actual) for a in bill.attempts] == [(0, False), (1234, True)]
    assert guess.cost == 60_000


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"<html>oops</html>", "not a usable image"),
        (b"", "not a usable image"),
        (png()[:-24], "not a usable image"),
        (png(1, 1), "a single pixel"),
    ],
)
async def test_results_are_verified(imaging: ImagePool, data: bytes, why: str) -> None:
    """A result that is not the picture that was asked for counts as undecodable, and the next route is tried."""
    bad = provider("bad", data, data)
    finished = await run(imaging, bad, provider("good", png()))

    assert len(bad.waited) == 2, "it is fetched once more before anything else is bought"
    assert finished.attempts[0].outcome == "undecodable"
    assert why in (finished.attempts[0].message or "")
    assert finished.served.provider == "good"


@pytest.mark.parametrize(
    ("size", "delivered", "said"), [((32, 32), (8, 8), "resized"), ((32, 8), (32, 8), "aspect ratio")]
)
async def test_a_whole_picture_of_another_size(
    imaging: ImagePool, size: tuple[int, int], delivered: tuple[int, int], said: str
) -> None:
    """It is paid for, and is not bought again: it is brought to size where that does not distort it, and told of."""
    finished = await run(imaging, provider("first", png(*size)), provider("second", png()))
    image = finished.images[0].image

    assert [attempt.outcome for attempt in finished.attempts] == ["ok"]
    assert (image.width, image.height) == delivered
    assert any(f"{size[0]}x{size[1]}" in note and said in note for note in finished.notes)


@pytest.mark.parametrize(("most", "bought"), [(None, 0), (29_999, 0), (30_000, 1)])
async def test_unknown_outcomes(imaging: ImagePool, most: int | None, bought: int) -> None:
    """After an unknown outcome a picture is bought again only where the operator pays for that, up to his limit."""
    first, second = provider("first", Unknown("lost")), provider("second", png())
    executor = replace(executing(imaging, first, second), max_duplicate=most)
    before = metrics.DUPLICATES.labels("second")._value.get()
    deadline = asyncio.get_running_loop().time() + 30
    try:
        finished = await executor.run("img_1", candidates(["first", "second"]), deadline, Recorder())
    except AllFailed:
        outcomes = ["unknown"]
    else:
        outcomes = [attempt.outcome for attempt in finished.attempts]

    counted = metrics.DUPLICATES.labels("second")._value.get() - before
    assert counted == bought
    assert outcomes == ["unknown", "ok"][: 1 + bought]
    assert len(second.jobs) == bought


class _Full(Recorder):
    """A book that takes the first call and no other."""

    async def sending(self, attempt: AttemptRow) -> None:
        if attempt.number:
            raise LedgerDown("full")


async def test_what_may_be_bought_counts_before_what_could_not_begin(imaging: ImagePool) -> None:
    """Of two calls one is lost and one could not be written down: that is no job of which nothing was bought."""
    sim = provider("sim")
    sim.lost = Unknown("lost")
    deadline = asyncio.get_running_loop().time() + 30

    with pytest.raises(AllFailed) as caught:
        await executing(imaging, sim).run("img_1", candidates(["sim"], n=2), deadline, _Full())

    assert [type(cause) for cause in caught.value.causes] == [Unknown]
    assert caught.value.to_json()["billed"] is True


async def test_a_fault_of_ours(imaging: ImagePool) -> None:
    """A bug in an adapter buys nothing more: the outcome counts as unknown, and the trace is in the log."""
    broken, second = provider("broken"), provider("second", png())

    with pytest.raises(AllFailed) as caught:
        await run(imaging, broken, second)

    assert [attempt.outcome for attempt in caught.value.attempts] == ["unknown"]
    assert not second.jobs


@pytest.mark.parametrize(
    ("causes", "status", "code", "retry"),
    [
        ([Rejected("bad seed")], 400, "invalid_value", None),
        ([Rejected("bad"), Failed("x")], 502, "all_providers_failed", "false"),
        ([Blocked("x")], 400, "content_policy_violation", None),
        ([Failed("x"), Unknown("x")], 504, "upstream_outcome_unknown", "false"),
        ([Throttled("x", retry_after=9), Throttled("x", retry_after=3)], 429, "rate_limit_exceeded", None),
        ([Throttled("x"), Unreached("x")], 503, "upstream_unavailable", None),
        ([Unusable("no credit: go and pay")], 503, "upstream_unavailable", None),
        ([Unreached("x"), Expired("x")], 504, "deadline_exceeded", "false"),
        ([Unfinished("x")], 504, "deadline_exceeded", "false"),
        ([Unfetched("x")], 504, "deadline_exceeded", "false"),
        ([Failed("x", unbilled=True)], 502, "all_providers_failed", None),
        ([Undecodable("x")], 502, "all_providers_failed", "false"),
    ],
)
def test_what_the_caller_hears(causes: list[ProviderError], status: int, code: str, retry: str | None) -> None:
    """Each set of causes has its status and code; repeats are called off once money may have been spent."""
    error = failed(AllFailed(causes, []))

    assert (error.status, error.code) == (status, code)
    assert error.headers.get("x-should-retry") == retry
    assert "pay" not in error.message
    if status == 429:
        assert error.headers["retry-after"] == "3"


@pytest.mark.parametrize(
    ("excluded", "status", "after"),
    [
        ([{"param": "n"}], 400, None),
        ([{"param": "n"}, {}], 400, None),
        ([{}], 503, "5"),
        ([{"retry_after": 9.2, "throttled": True}], 429, "10"),
        ([{"param": "routing"}, {"retry_after": 9.2, "throttled": True}], 429, "10"),
        ([{"param": "n"}, {"retry_after": 100}, {"retry_after": 9.2, "throttled": True}], 503, "10"),
    ],
)
def test_no_route_at_all(excluded: list[dict[str, Any]], status: int, after: str | None) -> None:
    """A request is at fault only where no route will be back that could serve it; else the caller hears when."""
    choice = Choice(candidates=[], excluded=[Excluded(route=ROUTE, reason="is out", **given) for given in excluded])
    error = no_route(MODEL, choice)

    assert (error.status, error.headers.get("retry-after")) == (status, after)


def test_every_error_states_its_policy() -> None:
    """Each leaf of the error tree says on purpose what the loop, the breaker and the bill are to make of it."""
    leaves = [cls for cls in ProviderError.__subclasses__() if cls.__module__ == "providers.errors"]
    for cls in leaves:
        leaves += cls.__subclasses__()

    assert set(leaves) == set(ERRORS)
    for cls in leaves:
        assert {"next_route", "health", "billed"} <= set(vars(cls)), cls
        assert cls.__doc__


async def test_a_cancel_that_comes_late_buys_nothing_more(imaging: ImagePool) -> None:
    """While one picture is being kept and the other has failed, a cancel means: that one moves on no more."""
    first, second = provider("first", Failed("no luck", unbilled=True), png()), provider("second", png())
    executor = executing(imaging, first, second)
    kept, go = asyncio.Event(), asyncio.Event()

    async def keep(image: Image) -> str | None:
        kept.set()
        await go.wait()
        return "file-0"

    executor = replace(executor, keep=keep)
    deadline = asyncio.get_running_loop().time() + 30
    task = asyncio.create_task(executor.run("img_1", candidates(["first", "second"], n=2), deadline, Recorder()))
    await kept.wait()
    task.cancel()
    await asyncio.sleep(0)
    go.set()
    finished = await task

    assert [attempt.outcome for attempt in finished.attempts] == ["failed", "ok"]
    assert finished.partial
    assert not second.jobs


async def test_a_picture_that_is_paid_for_waits_for_the_store(imaging: ImagePool) -> None:
    """A job that is taken up while nobody can read its files is not told to have lost them."""

    class Away(Shelf):
        away = 3

        async def load(self, kept: Json) -> StoredImage | None:
            Away.away -= 1
            if Away.away >= 0:
                raise StorageError("away")
            return await super().load(kept)

    class Rows(Recorder):
        last: AttemptRow

        def ended(self, attempt: AttemptRow) -> None:
            Rows.last = attempt

    clock = Skipping()
    executor = executing(imaging, provider("sim", png()), shelf=Away(), clock=clock)
    deadline = clock.after(30)
    first = await executor.run("img_1", candidates(["sim"]), deadline, Rows())
    again = await executor.resume([Rows.last], 1, 30, Rows())

    assert [picture.file for picture in again.images] == [picture.file for picture in first.images]
    assert Away.away == -1
    assert len(clock.slept) == 3


async def test_a_result_that_came_broken_is_fetched_once_more(imaging: ImagePool) -> None:
    """What was broken on its way is whole the second time, and nothing else is bought."""
    first, second = provider("first", png()[:-24], png()), provider("second", png())
    finished = await run(imaging, first, second)

    assert [attempt.outcome for attempt in finished.attempts] == ["ok"]
    assert (len(first.jobs), len(first.waited), len(second.jobs)) == (1, 2, 0)
