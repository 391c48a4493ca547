"""The contract suite: what every adapter has to do when its provider, or the network before it, misbehaves.

It needs a simulated provider, behind `SimulatedProvider`, that answers over real HTTP and misbehaves on demand. Each
function of `CHECKS` then holds the adapter to one sentence of the contract. With pytest:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_contract(check: Check, simulated: SimulatedProvider) -> None:
        async with Bench.over(simulated) as bench:
            await check(bench)
"""

from __future__ import annotations

import asyncio
import itertools
import zlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from normalization.values import Value
from providers.accounts import AccountKey, Accounts
from providers.base import Handle, Outcome, Provider, Readiness, Upstream, UpstreamJob
from providers.clock import SkippingClock
from providers.errors import Failed, ProviderError, Undecodable, Unfetched, Unknown
from providers.http.client import client
from providers.http.download import downloads_client
from providers.http.ssrf import UrlPolicy
from providers.kit.context import ProviderContext
from providers.kit.polling import Pace
from providers.row import ProviderRow
from providers.settings import ProviderSettings

Step: TypeAlias = Literal["submit", "poll", "result", "download"]
"""The requests of an adapter that may go wrong: `poll` asks how a job is, `result` asks what it gave."""

PROMPT = "a sentence that only its author and the model may read"
MOST_BYTES = 2_000_000
"""The largest image that the adapters of the suite accept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misbehaviour:
    """What the simulated provider does with one request.

    `answer` gives `status`, `body` and `headers`; `cut` closes the connection without an answer; `endless` sends bytes
    without end; `echo` answers `status` with an error in the provider's own form that repeats the request's headers and
    body. With `carried_out` the request is carried out first: a submit is accepted although its answer is lost.
    """

    kind: Literal["answer", "cut", "endless", "echo"] = "answer"
    status: int = 500
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    carried_out: bool = False


class SimulatedProvider(ABC):
    """A provider that is simulated over real HTTP, with an adapter that is to be held to the contract.

    `row` registers the adapter, `settings` lead it to the simulation, `key` is the API key that it accepts, None where
    the provider has none. `upstream` and `payload` are a job that succeeds with one image; its prompt, where it has
    one, should be `PROMPT`. `origins` are the `host:port` of the delivery host. `steps` are those requests that
    the provider has. `free` is true where a job costs nothing, so that a lost one may be run again.
    """

    row: ProviderRow[Any]
    settings: ProviderSettings
    key: str | None
    upstream: Upstream
    payload: Mapping[str, Value]
    origins: frozenset[str] = frozenset()
    steps: frozenset[Step] = frozenset({"submit", "poll", "download"})
    free: bool = False

    @abstractmethod
    def next(self, step: Step, misbehaviour: Misbehaviour) -> None:
        """Let the next request of this kind, after those already set, go wrong like this."""

    @abstractmethod
    def always(self, step: Step, misbehaviour: Misbehaviour) -> None:
        """Let each request of this kind go wrong like this, once those of `next` are over."""

    @property
    @abstractmethod
    def accepted(self) -> int:
        """How many jobs the provider has accepted."""

    @property
    @abstractmethod
    def keys_at_delivery(self) -> int:
        """How many requests with a credential came to the delivery host."""


_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """An adapter, built as the gateway builds it, before its simulated provider."""

    simulated: SimulatedProvider
    provider: Provider
    context: ProviderContext
    trap: Trap

    @classmethod
    @asynccontextmanager
    async def over(cls, simulated: SimulatedProvider) -> AsyncIterator[Bench]:
        """Build the adapter and start it. The simulation has to be running."""
        policy = UrlPolicy(simulated.origins)
        async with client() as http, downloads_client(policy) as downloads, Trap.set() as trap:
            context = ProviderContext(
                http=http,
                downloads=downloads,
                url_policy=policy,
                pace=Pace(SkippingClock()),
                max_result_bytes=MOST_BYTES,
            )
            bench = cls(simulated=simulated, provider=_built(simulated, context), context=context, trap=trap)
            await bench.provider.start()
            try:
                await bench.ready()
                yield bench
            finally:
                await bench.provider.aclose()

    async def ready(self) -> None:
        """Wait until the adapter can serve the model: one that watches workers has to see them first."""
        async with asyncio.timeout(10):
            while self.provider.readiness(self.simulated.upstream)[0] is not Readiness.READY:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def deadline(self, seconds: float = 3600) -> float:
        """A reading of the clock so many seconds from now."""
        return self.context.clock.now() + seconds

    async def submit(self) -> Handle:
        """Submit a job."""
        given = self.simulated
        return await self.provider.submit(
            UpstreamJob(
                id=f"contract-{next(_numbers)}",
                upstream=given.upstream,
                payload=given.payload,
                deadline=self.deadline(),
            )
        )

    async def run(self, seconds: float = 3600) -> Outcome:
        """Submit a job and wait for it."""
        handle = await self.submit()
        return await self.provider.wait(handle, self.deadline(seconds))

    async def error(self, seconds: float = 3600) -> ProviderError:
        """Run a job that has to fail, and return its error."""
        try:
            await self.run(seconds)
        except ProviderError as error:
            return error
        raise AssertionError("the job should have failed")


def _built(simulated: SimulatedProvider, context: ProviderContext) -> Provider:
    row, settings = simulated.row, simulated.settings
    if simulated.key is None:
        return row.adapter(settings, context)
    return Accounts([AccountKey(row.name, simulated.key)], lambda key: _with_key(simulated, context, key), park_s=60)


def _with_key(simulated: SimulatedProvider, context: ProviderContext, key: AccountKey | None) -> Provider:
    return simulated.row.adapter(simulated.settings, replace(context, key=key.reveal() if key else None))


@dataclass(slots=True)
class Trap:
    """A server that nobody may be led to: it counts the connections that come."""

    url: str = ""
    hits: int = 0

    @classmethod
    @asynccontextmanager
    async def set(cls) -> AsyncIterator[Trap]:
        """Listen on a free port of the loopback."""
        trap = cls()

        async def hit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            trap.hits += 1
            writer.close()

        server = await asyncio.start_server(hit, "127.0.0.1", 0)
        trap.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/image.png"
        try:
            yield trap
        finally:
            server.close()

    def redirect(self, status: int = 302) -> Misbehaviour:
        """An answer that leads here."""
        return Misbehaviour(status=status, headers={"location": self.url})


CUT = Misbehaviour(kind="cut")
HTML = {"content-type": "text/html"}
BAD_GATEWAY = Misbehaviour(status=502, body=b"<html><h1>502</h1></html>", headers=HTML)
FAILING = (
    CUT,
    BAD_GATEWAY,
    Misbehaviour(status=503, body=b"", headers={"retry-after": "1"}),
    Misbehaviour(status=429, body=b'{"error": "slow down"}'),
    Misbehaviour(status=200, body=b"<html>", headers=HTML),
)


async def a_job_gives_its_image_and_is_submitted_once(bench: Bench) -> None:
    """The plain case, without which nothing below means anything."""
    outcome = await bench.run()
    assert len(outcome.images) == 1
    assert outcome.images[0]
    assert bench.simulated.accepted == 1


async def a_failing_poll_is_asked_again(bench: Bench) -> None:
    """Whatever a poll is answered, the job is not submitted a second time."""
    for step in ("poll", "result"):
        if step in bench.simulated.steps:
            for failing in (*FAILING, bench.trap.redirect()):
                bench.simulated.next(step, failing)
    assert len((await bench.run()).images) == 1
    assert (bench.simulated.accepted, bench.trap.hits) == (1, 0)


async def an_endless_poll_is_cut(bench: Bench) -> None:
    """It is asked again, or its result is refused where an answer may hold images; the job is submitted once."""
    if "poll" not in bench.simulated.steps:
        return
    bench.simulated.next("poll", Misbehaviour(kind="endless"))
    with suppress(Undecodable):
        assert len((await bench.run()).images) == 1
    assert bench.simulated.accepted == 1


async def a_lost_answer_to_a_submit_is_unknown(bench: Bench) -> None:
    """Nobody knows whether the job was accepted, so that nothing may be bought elsewhere."""
    bench.simulated.always("submit", CUT)
    error = await bench.error()
    if bench.simulated.free:
        assert (type(error), error.billed) == (Failed, False)
    else:
        assert type(error) is Unknown
        assert not error.next_route


async def a_job_whose_answer_was_lost_is_not_bought_twice(bench: Bench) -> None:
    """It is Unknown, or the very job is found again."""
    bench.simulated.next("submit", Misbehaviour(kind="cut", carried_out=True))
    try:
        outcome = await bench.run()
    except Unknown:
        pass
    else:
        assert len(outcome.images) == 1
    assert bench.simulated.accepted == (2 if bench.simulated.free else 1)


async def an_endless_answer_to_a_submit_is_cut(bench: Bench) -> None:
    """It ends, in an error, and not when the memory does."""
    bench.simulated.always("submit", Misbehaviour(kind="endless"))
    assert isinstance(await bench.error(), Unknown | Undecodable)


async def redirects_are_not_followed(bench: Bench) -> None:
    """A redirected submit is an answer from something in between: it is lost. The redirect's host hears nothing."""
    bench.simulated.always("submit", bench.trap.redirect(307))
    error = await bench.error()
    assert isinstance(error, Unknown | Failed)
    assert bench.trap.hits == 0


async def results_are_not_fetched_from_where_a_redirect_leads(bench: Bench) -> None:
    """The delivery host cannot lead us to addresses that the URL policy forbids."""
    if "download" not in bench.simulated.steps:
        return
    bench.simulated.always("download", bench.trap.redirect())
    assert isinstance(await bench.error(60), Undecodable | Unfetched)
    assert (bench.simulated.accepted, bench.trap.hits) == (1, 0)


async def a_result_that_fails_to_come_is_fetched_again(bench: Bench) -> None:
    """A job that has succeeded is paid for: a delivery that fails for a while costs nothing but time."""
    if "download" not in bench.simulated.steps:
        return
    for failing in (CUT, BAD_GATEWAY, Misbehaviour(status=404), Misbehaviour(status=403), Misbehaviour(status=200)):
        bench.simulated.next("download", failing)
    assert len((await bench.run()).images) == 1
    assert bench.simulated.accepted == 1


async def a_result_that_does_not_come_is_unfetched(bench: Bench) -> None:
    """And not Undecodable: nothing else is bought in its place, and whoever waits again gets it."""
    if "download" not in bench.simulated.steps:
        return
    bench.simulated.always("download", BAD_GATEWAY)
    error = await bench.error(60)
    assert (type(error), error.next_route) == (Unfetched, False)
    assert bench.simulated.accepted == 1


async def a_bomb_is_cut(bench: Bench) -> None:
    """A compressed result that grows a thousandfold, and one without end, are Undecodable."""
    if "download" not in bench.simulated.steps:
        return
    shape = zlib.compressobj(wbits=31)
    bomb = shape.compress(bytes(64 << 20)) + shape.flush()
    for bad in (
        Misbehaviour(status=200, body=bomb, headers={"content-encoding": "gzip", "content-type": "image/png"}),
        Misbehaviour(kind="endless"),
    ):
        bench.simulated.always("download", bad)
        assert type(await bench.error()) is Undecodable


async def keys_go_to_the_provider_alone(bench: Bench) -> None:
    """The delivery host sees no credential, and neither a representation nor an error shows one."""
    await bench.run()
    assert bench.simulated.keys_at_delivery == 0
    if not (key := bench.simulated.key):
        return
    for status in (400, 401, 403, 422, 429, 500):
        bench.simulated.always("submit", Misbehaviour(kind="echo", status=status))
        error = await bench.error()
        assert key not in f"{error.message} {error!r} {error.args}"
    assert key not in repr(bench.provider)
    assert key not in repr(bench.context)


async def prompts_are_not_told(bench: Bench) -> None:
    """The sentence of an error is the adapter's own: a provider that repeats the input does not get it into that.

    What the provider itself wrote is kept apart (`said`), and is shown after the texts of the input are redacted.
    """
    prompts = [text for text in bench.simulated.payload.values() if isinstance(text, str)]
    for status in (400, 422, 429, 500):
        bench.simulated.always("submit", Misbehaviour(kind="echo", status=status))
        error = await bench.error()
        assert not any(prompt in error.told for prompt in prompts)
        error.redact(prompts)
        assert not any(prompt in f"{error.message} {error.args}" for prompt in prompts)


async def cancelling_a_job_that_has_ended_is_harmless(bench: Bench) -> None:
    """However often it is done."""
    handle = await bench.submit()
    assert len((await bench.provider.wait(handle, bench.deadline())).images) == 1
    for _ in range(2):
        await bench.provider.cancel(handle)
    assert bench.simulated.accepted == 1


async def without_a_key_it_is_off_and_names_the_variable(bench: Bench) -> None:
    """The operator reads which environment variable is missing."""
    if bench.simulated.key is None:
        return
    off = _with_key(bench.simulated, bench.context, None)
    readiness, why = off.readiness(bench.simulated.upstream)
    assert readiness is Readiness.OFF
    assert getattr(bench.simulated.settings, "key_env") in why  # noqa: B009 - of cloud settings alone


async def what_it_cannot_verify_is_no_webhook(bench: Bench) -> None:
    """Nothing that a stranger posts to the webhook's address is believed, and nothing raises."""
    if bench.simulated.free:
        return
    for body in (b"", b"{}", b"\xff", b'{"id": "contract-1", "status": "succeeded"}'):
        assert await bench.provider.parse_webhook({"content-type": "application/json"}, body) is None


Check: TypeAlias = Callable[[Bench], Awaitable[None]]

CHECKS: tuple[Check, ...] = (
    a_job_gives_its_image_and_is_submitted_once,
    a_failing_poll_is_asked_again,
    an_endless_poll_is_cut,
    a_lost_answer_to_a_submit_is_unknown,
    a_job_whose_answer_was_lost_is_not_bought_twice,
    an_endless_answer_to_a_submit_is_cut,
    redirects_are_not_followed,
    results_are_not_fetched_from_where_a_redirect_leads,
    a_result_that_fails_to_come_is_fetched_again,
    a_result_that_does_not_come_is_unfetched,
    a_bomb_is_cut,
    keys_go_to_the_provider_alone,
    prompts_are_not_told,
    cancelling_a_job_that_has_ended_is_harmless,
    without_a_key_it_is_off_and_names_the_variable,
    what_it_cannot_verify_is_no_webhook,
)
