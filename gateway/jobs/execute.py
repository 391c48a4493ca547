"""The one failover loop. What an error means for the next route stands in its class, never here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from gateway.jobs.imaging import BadImage, Imaging
from gateway.routing.breaker import Breakers
from gateway.routing.learning import Learning
from gateway.routing.pricing import MICROS
from gateway.routing.select import Candidate
from gateway.telemetry import metrics
from gateway.telemetry.logs import event
from normalization.model import Route
from normalization.values import Image, Plan, Size, Value
from providers.base import (
    Expired,
    Job,
    Outcome,
    Provider,
    ProviderError,
    Undecodable,
    Unfinished,
    Unknown,
    Unusable,
    Upstream,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One upstream call as it went. `cost` is in micro-dollars, `actual` false where it is only the estimate."""

    provider: str
    model: str
    picture: int
    outcome: str
    seconds: float
    cost: int = 0
    actual: bool = False
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a job gave: the delivered pictures in order, who made them, and every attempt."""

    pictures: tuple[Image, ...] = field(repr=False)
    candidate: Candidate
    attempts: tuple[Attempt, ...]
    notes: tuple[str, ...]
    wanted: int

    @property
    def cost(self) -> int:
        return sum(attempt.cost for attempt in self.attempts)

    @property
    def partial(self) -> bool:
        return len(self.pictures) < self.wanted


class AllFailed(Exception):
    """No route gave a picture. `causes` are the errors in the order they came, at least one."""

    def __init__(self, causes: Sequence[ProviderError], attempts: Sequence[Attempt]) -> None:
        super().__init__("; ".join(cause.message for cause in causes))
        self.causes = tuple(causes)
        self.attempts = tuple(attempts)


@dataclass(slots=True)
class _Progress:
    """What is there so far: delivered pictures by the number of their call, attempts, errors, notes.

    `closed` are the calls that must not be tried elsewhere after what became of them, `unknown` those that may have
    been bought already.
    """

    pictures: dict[int, tuple[Image, ...]] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    attempts: list[Attempt] = field(default_factory=list)
    causes: list[ProviderError] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """Takes candidates in their order and gets the pictures from the first that gives them.

    `max_duplicate` is up to how many micro-dollars a picture may be bought again after an unknown outcome; None: never.
    """

    providers: Mapping[str, Provider]
    imaging: Imaging
    breakers: Breakers
    learning: Learning
    attempt_timeout: float
    max_duplicate: int | None = None

    async def run(self, candidates: Sequence[Candidate], deadline: float) -> Finished:
        """Try route after route until every picture is there. Only what is missing goes on to the next one.

        `deadline` is of the event loop's clock. Raises AllFailed when there is not one picture.
        """
        progress = _Progress()
        served: list[Candidate] = []
        if len(candidates[0].plan.calls) > 1:
            metrics.EMULATIONS.labels("fan_out").inc()
        for candidate in candidates:
            calls = len(candidate.plan.calls)
            if progress.attempts and calls != len(candidates[0].plan.calls):
                continue  # its calls are not the ones that are missing
            missing = [i for i in range(calls) if i not in progress.pictures and i not in progress.closed]
            if not missing or (progress.attempts and _now() >= deadline):
                break
            if rebuys := sum(i in progress.unknown for i in missing):
                metrics.DUPLICATES.labels(candidate.route.provider).inc(rebuys)
            before = len(progress.pictures)
            await asyncio.gather(*(self._picture(candidate, i, deadline, progress) for i in missing))
            if len(progress.pictures) > before:
                served.append(candidate)
        if not served:
            raise AllFailed(progress.causes, progress.attempts)
        plan = served[-1].plan
        told = [note for candidate in served for note in candidate.plan.notes]
        return Finished(
            pictures=tuple(picture for i in sorted(progress.pictures) for picture in progress.pictures[i]),
            candidate=served[-1],
            attempts=tuple(progress.attempts),
            notes=tuple(dict.fromkeys([*told, *progress.notes])),
            wanted=len(plan.calls) * plan.pictures_per_call,
        )

    def _goes_on(self, error: ProviderError, candidate: Candidate) -> bool:
        """The class decides; what may have been bought is bought again only as far as the operator pays for that."""
        share = candidate.cost.micros // len(candidate.plan.calls)
        rebuys = isinstance(error, Unknown) and self.max_duplicate is not None and share <= self.max_duplicate
        return error.next_route or rebuys

    async def _picture(self, candidate: Candidate, number: int, deadline: float, progress: _Progress) -> None:
        """One call, from its submit to the finished picture; what came of it is written into `progress`."""
        route, plan, began = candidate.route, candidate.plan, _now()
        outcome: Outcome | None = None
        try:
            with self.breakers.attempt(candidate.model, route.name, route.provider):
                outcome = await self._call(candidate, number, deadline)
                pictures = await self._finish(outcome, plan, progress)
        except ProviderError as error:
            self._failed(candidate, number, _now() - began, progress, outcome, error)
            return
        except Exception:  # noqa: BLE001 - a fault of ours: what was bought is not known, so nothing more is bought
            event("attempt.crashed", logging.ERROR, provider=route.provider, route=route.name, exc_info=True)
            lost = Unknown("the gateway had an error of its own")
            self._failed(candidate, number, _now() - began, progress, outcome, lost)
            return
        progress.pictures[number] = pictures
        self._record(candidate, number, _now() - began, progress, outcome, None)
        metrics.ATTEMPT_SECONDS.labels(route.provider, route.name).observe(_now() - began)
        self.learning.learn(
            candidate.model,
            route.name,
            latency=_now() - began,
            observed=outcome.seconds,
            expected=candidate.cost.seconds,
        )

    def _failed(
        self,
        candidate: Candidate,
        number: int,
        seconds: float,
        progress: _Progress,
        outcome: Outcome | None,
        error: ProviderError,
    ) -> None:
        progress.causes.append(error)
        if isinstance(error, Unknown):
            progress.unknown.add(number)
        if not self._goes_on(error, candidate):
            progress.closed.add(number)
        self._record(candidate, number, seconds, progress, outcome, error)

    async def _call(self, candidate: Candidate, number: int, deadline: float) -> Outcome:
        """Submit, and wait as long as an attempt is given; to the request's deadline where nothing can be cancelled."""
        route = candidate.route
        limit = min(deadline, _now() + self.attempt_timeout)
        provider = self.providers[route.provider]
        job = Job(
            id=f"dr-{secrets.token_hex(12)}",
            upstream=upstream(route),
            payload=candidate.plan.calls[number],
            deadline=limit,
        )
        handle = await provider.submit(job)
        try:
            return await provider.wait(handle, limit)
        except Unfinished:
            # The job goes on and is paid for: no other may be bought, so what is left of the time is its.
            if limit >= deadline:
                raise
            return await provider.wait(handle, deadline)
        except asyncio.CancelledError:
            with contextlib.suppress(ProviderError):  # it may not be seen to end; the job here ends all the same
                await asyncio.shield(provider.cancel(handle))
            raise

    async def _finish(self, outcome: Outcome, plan: Plan, progress: _Progress) -> tuple[Image, ...]:
        if len(outcome.pictures) < plan.pictures_per_call:
            raise Undecodable(f"{len(outcome.pictures)} pictures came, {plan.pictures_per_call} were asked for")
        finished = []
        for data in outcome.pictures[: plan.pictures_per_call]:
            try:
                image = await self.imaging.inspect(data)
                verify(image, plan.output)
                done, notes = await self.imaging.finish(data, image.header, plan.finish)
            except BadImage as error:
                raise Undecodable(f"the result is no usable picture: {error.message}") from error
            _count_emulations(image, done)
            progress.notes.update(dict.fromkeys(notes))
            finished.append(done)
        return tuple(finished)

    def _record(
        self,
        candidate: Candidate,
        number: int,
        seconds: float,
        progress: _Progress,
        outcome: Outcome | None,
        error: ProviderError | None,
    ) -> None:
        route = candidate.route
        share = candidate.cost.micros // len(candidate.plan.calls)
        actual = outcome.cost if outcome is not None else None
        # What may have been billed counts as billed until the provider says otherwise.
        spent = error is None or error.billed is True or isinstance(error, (Unknown, Expired))
        cost = actual if actual is not None else share if spent else 0
        name = "ok" if error is None else type(error).__name__.lower()
        progress.attempts.append(
            Attempt(
                provider=route.provider,
                model=route.model or route.name,
                picture=number,
                outcome=name,
                seconds=round(seconds, 3),
                cost=cost,
                actual=actual is not None,
                message=_told(error) if error else None,
            )
        )
        metrics.ATTEMPTS.labels(route.provider, route.name, name).inc()
        metrics.COST.labels(route.provider, route.name).inc(cost / MICROS)
        if error is not None:
            event(
                "attempt.failed", logging.WARNING, provider=route.provider, route=route.name, outcome=name,
                seconds=round(seconds, 3), message=error.message,
            )  # fmt: skip


def upstream(route: Route) -> Upstream:
    """What the adapter is told of a route."""
    return Upstream(model=route.model, options=cast("Mapping[str, Value]", route.options))


def verify(image: Image, expected: Size | None) -> None:
    """Refuse a result that cannot be what was asked for: one pixel, or a size beyond a model's usual rounding."""
    if image.width == 1 and image.height == 1 and expected != Size(width=1, height=1):
        raise Undecodable("the result is a single pixel")
    if expected is None:
        return
    for got, wanted in ((image.width, expected.width), (image.height, expected.height)):
        # Diffusion models work in blocks of 8 pixels and round to them, up to 64 at the coarsest.
        if abs(got - wanted) > max(8, 0.02 * wanted):
            raise Undecodable(f"the result is {image.width}x{image.height}, expected was {expected}")


def _told(error: ProviderError) -> str:
    """What the caller may read of an error. Trouble with our account is ours: only the log has the provider's text."""
    return "our key or account cannot be used there" if isinstance(error, Unusable) else error.message


def _count_emulations(came: Image, done: Image) -> None:
    if came.format != done.format:
        metrics.EMULATIONS.labels("transcode").inc()
    if (came.width, came.height) != (done.width, done.height):
        metrics.EMULATIONS.labels("resize").inc()


def _now() -> float:
    return asyncio.get_running_loop().time()
