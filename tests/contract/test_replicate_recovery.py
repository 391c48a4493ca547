"""Replicate: what is written down before a submit, and how a job is found by it in another process."""

from __future__ import annotations

import dataclasses
import json
import time
from datetime import timedelta
from typing import Any

import pytest

from normalization.values import Image
from providers.accounts import AccountKey, Accounts
from providers.base import Handle, PendingSubmit, Upstream, UpstreamJob
from providers.errors import Expired, Unknown
from tests.contract.replicate_setup import IMAGE, UPSTREAM, Joint, adapter, job, soon
from tests.simulators.common import Fault, html, size, tiny
from tests.simulators.replicate import TOKEN, Simulator
from tests.support.linked import Refused, Told, bill, crashed, stored

HOOK = "http://127.0.0.1:1/hooks/attempt-1"
OFFICIAL = Upstream(model="topazlabs/image-upscale")
LOST = Fault(kind="hang", after=True)
# So long is a submit under way, and the list behind, in `adapter`.
SETTLED_S = 61.0


@pytest.fixture
def sim(running_replicate: Simulator) -> Simulator:
    running_replicate.reset()
    running_replicate.hooks.postman.off = True
    return running_replicate


async def lost(
    sim: Simulator, given: UpstreamJob | None = None, webhook: str | None = None, **settings: Any
) -> PendingSubmit:
    """A submit that was taken by a process that then died."""
    sim.faults.script("submit", LOST)
    count = len(sim.jobs)
    async with adapter(sim, **{"submit_timeout_s": 5.0, **settings}) as first:
        return await crashed(first, given or job(), Told(webhook), lambda: len(sim.jobs) > count)


async def found(sim: Simulator, sent: PendingSubmit, **settings: Any) -> Handle | None:
    async with adapter(sim, **settings) as second:
        return await second.recover(sent)


def aged(sim: Simulator, sent: PendingSubmit, seconds: float = 3600) -> PendingSubmit:
    """The same, as if it were so long ago."""
    for prediction in sim.jobs.values():
        prediction.created_at -= timedelta(seconds=seconds)
    return dataclasses.replace(sent, at=sent.at - seconds)


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "uploaded"])
async def test_what_is_sent_is_written_down_first(sim: Simulator, inline: bool) -> None:
    """Once, after the uploads and before the submit: what tells the job again, and neither picture, prompt nor key."""

    class Counting(Told):
        async def sending(self, data: Any) -> None:
            self.at_sending = [len(sim.files), len(sim.bodies)]
            await super().sending(data)

    link = Counting()
    async with adapter(sim, data_uri_bytes=10_000 if inline else 10) as provider:
        await provider.submit(job(prompt="a secret wish"), link)

    assert link.at_sending == [0 if inline else 1, 0]
    (data,) = link.sent
    assert all(isinstance(value, str) for value in data.values())
    text = json.dumps(data)
    assert len(text) < 1000
    for kept in ("wish", TOKEN, "base64", "data:"):
        assert kept not in text
    assert len(sim.bodies) == 1


async def test_where_it_cannot_be_written_down_nothing_is_sent(sim: Simulator) -> None:
    """What `sending` raises stops the submit, and is what the caller gets."""
    async with adapter(sim) as provider:
        with pytest.raises(Refused):
            await provider.submit(job(), Told(refuses=True))
    assert sim.books.count("POST", "predictions") == 0


async def test_what_takes_too_long_to_write_down_is_not_sent(sim: Simulator) -> None:
    """After its deadline nobody waits for the job: it surely cost nothing."""

    clock = Joint(sim)

    class Slow(Told):
        async def sending(self, data: Any) -> None:
            await clock.sleep(20)

    async with adapter(sim, clock=clock) as provider:
        with pytest.raises(Expired) as caught:
            await provider.submit(job(seconds=10), Slow())
        assert bill(caught.value)[1] is False
        past = Told()
        with pytest.raises(Expired):
            await provider.submit(job(seconds=-1), past)
    assert past.sent == []
    assert sim.bodies == []


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({}, {}),
        ({}, {"data_uri_bytes": 10}),
        ({"prompt": "größer", "several": [IMAGE], "mask": None}, {}),
        ({"upstream": OFFICIAL}, {}),
    ],
    ids=["inline", "uploaded", "several", "official"],
)
@pytest.mark.parametrize("webhook", [None, HOOK])
@pytest.mark.parametrize("shown", [True, False])
async def test_a_job_is_found_by_another_process(
    sim: Simulator, given: dict[str, Any], settings: dict[str, Any], webhook: str | None, shown: bool
) -> None:
    """From what was written down alone, in a list with other jobs: its picture is fetched, and was bought once."""
    sim.shows_webhook = shown
    async with adapter(sim) as other:
        await other.submit(job(image=Image(data=tiny(24, 16, (1, 2, 3)), header=IMAGE.header)))
        await other.submit(job(seed=78))
    sent = await lost(sim, job(**given), webhook, **settings)
    async with adapter(sim) as second:
        handle = stored(await second.recover(sent))
        assert handle.id == sim.books.taken[2]
        outcome = await second.wait(handle, soon())
        assert stored(await second.recover(sent)) == dataclasses.replace(handle, data={**handle.data, "ready": "yes"})

    assert size(outcome.images[0]) == (48, 32)
    assert bool(outcome.cost) == ("upstream" not in given)
    assert len(sim.books.taken) == 3


async def test_the_one_among_its_likes_is_told_by_its_webhook(sim: Simulator) -> None:
    """Twice the same job in the same moment: each is found as itself, and where the webhook is not shown, neither."""
    first = await lost(sim, webhook=HOOK)
    second = await lost(sim, webhook=HOOK.replace("1/hooks", "2/hooks"))
    handles = [await found(sim, sent) for sent in (first, second)]
    assert [handle.id for handle in handles if handle] == sim.books.taken
    blind = dataclasses.replace(first, data={**first.data, "webhook": ""})
    with pytest.raises(Unknown):
        await found(sim, blind)


async def test_of_two_alike_each_is_found_once(sim: Simulator) -> None:
    """A job that was found for one submit is not found for another of the same moment, in the same process."""
    first, second = await lost(sim), await lost(sim)
    second = dataclasses.replace(second, id="attempt-2", at=first.at)
    async with adapter(sim) as later:
        handles = [await later.recover(sent) for sent in (first, second, second, first)]
    assert [handle.id for handle in handles if handle] == [*sim.books.taken, *reversed(sim.books.taken)]


async def test_a_job_that_a_webhook_told_of_is_asked_for(sim: Simulator) -> None:
    """No list is read, and one bad answer does no harm."""
    sent = await lost(sim)
    sim.faults.script("poll", html(502))
    handle = stored(await found(sim, dataclasses.replace(sent, heard=sim.books.taken[0])))
    assert handle.id == sim.books.taken[0]
    assert sim.books.count("GET", "/v1/predictions") == sim.books.count("GET", f"/v1/predictions/{handle.id}") == 2


async def test_what_a_webhook_is_said_to_have_told_may_be_nonsense(sim: Simulator) -> None:
    """An id that is none is ignored, and one that is not there stays unknown."""
    sent = await lost(sim)
    assert stored(await found(sim, dataclasses.replace(sent, heard="../files"))).id == sim.books.taken[0]
    with pytest.raises(Unknown):
        await found(sim, dataclasses.replace(sent, heard="nobody"))


async def test_a_list_that_lags_is_read_again(sim: Simulator) -> None:
    """The job turns up a little later."""
    sim.lag_s = 0.5
    sent = await lost(sim)
    assert stored(await found(sim, sent, reconcile_s=60)).id == sim.books.taken[0]
    assert sim.books.count("GET", "/v1/predictions") > 1


async def test_a_job_on_a_later_page_is_found(sim: Simulator) -> None:
    """The list is read on to its end."""
    sent = await lost(sim)
    async with adapter(sim) as other:
        for seed in range(4):
            await other.submit(job(seed=seed))
    sim.page = 1
    assert stored(await found(sim, sent)).id == sim.books.taken[0]
    assert sim.books.count("GET", "/v1/predictions") == 5


async def test_a_job_that_is_surely_not_there(sim: Simulator) -> None:
    """Long after the submit, in a list that was read whole, with nothing in it that could be the job."""
    async with adapter(sim) as other:
        await other.submit(job(seed=78))
    sent = await lost(sim)
    ours = sim.jobs.pop(sim.books.taken[1])
    sent = aged(sim, sent)
    assert await found(sim, sent) is None
    sim.jobs[ours.id] = ours
    with pytest.raises(Unknown):
        await found(sim, sent)  # the same input, an hour later: the clock may have been wrong
    ours.created_at -= timedelta(seconds=3600)
    assert stored(await found(sim, sent)).id == ours.id


async def test_soon_after_the_submit_nobody_can_say_that_it_is_not_there(sim: Simulator) -> None:
    """The request may be under way, and the list behind."""
    sent = await lost(sim)
    sim.jobs.clear()
    with pytest.raises(Unknown):
        await found(sim, aged(sim, sent, SETTLED_S - 3))
    assert await found(sim, aged(sim, sent, SETTLED_S + 1)) is None


def forget_input(sim: Simulator) -> None:
    for prediction in sim.jobs.values():
        prediction.input = {}


def wrong_clock(sim: Simulator) -> None:
    sim.clock_s = 20


def endless_list(sim: Simulator) -> None:
    page = {"results": [], "next": f"{sim.url}/v1/predictions?cursor=1"}
    sim.faults.always("list", Fault(status=200, body=page))


def refuse_list(sim: Simulator) -> None:
    sim.faults.always("list", Fault(status=429, body={"detail": "slow", "retry_after": 0.1}))


def odd_next(sim: Simulator) -> None:
    sim.faults.always("list", Fault(status=200, body={"results": [], "next": "http://["}))


@pytest.mark.parametrize("spoil", [forget_input, wrong_clock, endless_list, refuse_list, odd_next])
async def test_a_list_that_proves_nothing(sim: Simulator, spoil: Any) -> None:
    """Inputs that were removed, clocks that differ, a list without end or none at all: the job may be there."""
    sent = aged(sim, await lost(sim))
    if spoil is not forget_input:
        sim.jobs.clear()
    spoil(sim)
    with pytest.raises(Unknown):
        await found(sim, sent)


async def test_the_list_of_another_account_proves_nothing(sim: Simulator) -> None:
    """The key was changed in between."""
    sent = aged(sim, await lost(sim))
    sim.jobs.clear()
    with pytest.raises(Unknown, match="another account"):
        await found(sim, dataclasses.replace(sent, data={**sent.data, "token": "deadbeef"}))


async def test_the_key_does_not_follow_the_list_elsewhere(sim: Simulator) -> None:
    """Of the address of the next page only its query is taken."""
    sent = await lost(sim)
    page = {"results": [], "next": "https://replicate.example/x?cursor=0"}
    sim.faults.script("list", Fault(status=200, body=page))
    assert await found(sim, sent)
    assert {path for method, path in sim.books.requests if method == "GET"} == {"/v1/predictions"}


async def test_a_lost_answer_is_looked_for_in_the_same_way_at_once(sim: Simulator) -> None:
    """The submit itself finds its job on a second page; what was written down then would find it again."""
    async with adapter(sim) as provider:
        for seed in range(2):
            await provider.submit(job(seed=seed))
        sim.page = 1
        sim.faults.script("submit", Fault(kind="cut", after=True))
        link = Told()
        handle = await provider.submit(job(), link)
    assert handle.id == sim.books.taken[-1]
    sent = PendingSubmit(id="attempt-1", upstream=UPSTREAM, at=time.time(), data=link.sent[0])
    assert stored(await found(sim, sent)).id == handle.id


@pytest.mark.parametrize("wrong_s", [3600.0, 600.0, -600.0])
async def test_a_clock_that_was_wrong_buys_nothing_twice(sim: Simulator, wrong_s: float) -> None:
    """The job is in the list, at another time than that of its submit as it was written down: nothing is sure then."""
    sent = aged(sim, await lost(sim), 7200)
    assert stored(await found(sim, sent)).id == sim.books.taken[0]
    with pytest.raises(Unknown):
        await found(sim, dataclasses.replace(sent, at=sent.at + wrong_s))
    sim.jobs.clear()
    assert await found(sim, dataclasses.replace(sent, at=sent.at + wrong_s)) is None


async def test_a_known_job_of_another_call_is_no_doubt(sim: Simulator) -> None:
    """The same call was made before, an hour ago, and its job is known: the one that never arrived is absent."""
    sent = aged(sim, await lost(sim))
    later = dataclasses.replace(sent, at=sent.at + 1800, claimed_ids=frozenset(sim.books.taken))
    assert await found(sim, later) is None


async def test_a_submit_that_never_arrived_is_found_to_be_absent(sim: Simulator) -> None:
    """Behind a provider of several keys too: what each of them writes down stays as it was."""
    key = AccountKey("replicate", TOKEN)
    sim.faults.script("submit", Fault(kind="cut"))
    link = Told()
    async with adapter(sim) as one:
        accounts = Accounts([key], lambda key: one, park_s=1.0)
        with pytest.raises(Unknown):
            await accounts.submit(job(), link)
        (data,) = link.sent
        sent = PendingSubmit(id="attempt-1", upstream=UPSTREAM, at=time.time() - 3600, data=data)
        assert await accounts.recover(sent) is None
    assert sim.books.taken == []
