"""Which routes can serve a request, in which order they are tried, and why none can."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.routing.breaker import Standing
from gateway.routing.preferences import RoutingPreferences, Strategy
from gateway.routing.pricing import Estimate, RunStats, estimate
from normalization.parameters.plan import Ineligible, plan
from normalization.parameters.schema import Model, Route
from normalization.values import Announced, ImageRequest, Plan, Size
from providers.base import Readiness


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteHealth:
    """How a route is at the moment. `left` is in how many seconds its standing ends, `announced` what its worker takes,
    where it has one.
    """

    readiness: Readiness
    detail: str = ""
    announced: Announced | None = None
    standing: Standing = "well"
    left: float = 0
    lesson: RunStats = field(default_factory=RunStats)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A route of a model that can serve the request, with its plan, what it will cost and how it is."""

    model: str
    route: Route
    plan: Plan
    cost: Estimate
    condition: RouteHealth

    @property
    def healthy(self) -> bool:
        return self.condition.readiness is Readiness.READY and self.condition.standing == "well"


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A route that cannot, and why.

    `param` names what in the request stands in the way, None where nothing does; `retry_after` is in how many seconds
    it may be different, None where nobody knows; `throttled` is true while the provider asks to be left alone. `own` is
    true where the caller left the route out himself.
    """

    route: Route
    reason: str
    param: str | None = None
    retry_after: float | None = None
    throttled: bool = False
    own: bool = False


_DRAW = random.Random()  # noqa: S311 - no secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The candidates in the order they are to be tried, and the rest."""

    candidates: Sequence[Candidate]
    excluded: Sequence[Excluded]


def choose(
    model: Model,
    request: ImageRequest,
    conditions: Mapping[str, RouteHealth],
    *,
    preferences: RoutingPreferences = RoutingPreferences(),  # noqa: B008 - frozen
    strategy: Strategy = "cheapest",
    draw: random.Random | None = None,
    tell: bool = True,
) -> Choice:
    """Sort a model's routes for a request.

    `conditions` are the routes', by name. `strategy` counts where the wish names none; `draw` is what the balanced
    strategy draws from. `tell` is plan()'s. Raises Invalid as plan() does.
    """
    candidates: list[Candidate] = []
    excluded: list[Excluded] = []
    for route in model.routes.values():
        found = _consider(model, route, request, conditions, preferences, tell)
        if isinstance(found, Candidate):
            candidates.append(found)
        else:
            excluded.append(found)
    ordered = _order(candidates, preferences, preferences.sort or strategy, draw or _DRAW)
    if not preferences.allow_fallbacks:
        reason = "is not to be tried, as allow_fallbacks is false"
        unused = [Excluded(route=c.route, reason=reason, own=True) for c in ordered[1:]]
        ordered, excluded = ordered[:1], [*excluded, *unused]
    return Choice(candidates=ordered, excluded=excluded)


def _consider(
    model: Model,
    route: Route,
    request: ImageRequest,
    conditions: Mapping[str, RouteHealth],
    preferences: RoutingPreferences,
    tell: bool,
) -> Candidate | Excluded:
    condition = conditions[route.name]
    names = {route.name, route.provider}
    if preferences.only and not names & set(preferences.only):
        reason = f"is not {' or '.join(preferences.only)}, as the request asks"
        return Excluded(route=route, reason=reason, param="routing", own=True)
    if names & set(preferences.ignore):
        return Excluded(route=route, reason="is to be ignored, as the request asks", param="routing", own=True)
    if condition.readiness is Readiness.OFF:
        return Excluded(route=route, reason=f"is off: {condition.detail}")
    if condition.standing == "parked":
        return Excluded(route=route, reason="cannot be used with our account at present", retry_after=condition.left)
    if condition.standing == "cooling":
        return Excluded(route=route, reason="is throttled", retry_after=condition.left, throttled=True)
    if route.degraded and not request.params.get("allow_degraded") and _has_real_route(model, conditions):
        reason = "is degraded, and a real route is configured; allow_degraded=true admits it"
        return Excluded(route=route, reason=reason)
    try:
        planned = plan(model, route, request, condition.announced, tell=tell)
    except Ineligible as reason_:
        return Excluded(route=route, reason=reason_.message, param=reason_.param)
    source = Size(width=request.images[0].width, height=request.images[0].height)
    cost = estimate(route.price, source, planned, pace=condition.lesson.pace)
    if preferences.max_cost is not None and cost.usd > preferences.max_cost:
        reason = f"costs {cost.usd:.4f} USD, above the max_cost of {preferences.max_cost:g}"
        return Excluded(route=route, reason=reason, param="routing")
    return Candidate(model=model.id, route=route, plan=planned, cost=cost, condition=condition)


def _has_real_route(model: Model, conditions: Mapping[str, RouteHealth]) -> bool:
    return any(not r.degraded and conditions[r.name].readiness is not Readiness.OFF for r in model.routes.values())


def _order(
    candidates: Sequence[Candidate], preferences: RoutingPreferences, strategy: Strategy, draw: random.Random
) -> list[Candidate]:
    """Sort by strategy; then, more important, by what is wished first and by health; a degraded route comes last."""
    if strategy == "cheapest":
        ranked = sorted(candidates, key=lambda c: (c.cost.micros, c.condition.lesson.latency or 0))
    elif strategy == "fastest":
        ranked = sorted(candidates, key=lambda c: (_latency(c), c.cost.micros))
    elif strategy == "balanced":
        ranked = _drawn(candidates, draw)
    else:
        ranked = list(candidates)
    return sorted(ranked, key=lambda c: (c.route.degraded is not None, not c.healthy, _place(c, preferences)))


def _place(candidate: Candidate, preferences: RoutingPreferences) -> int:
    places = (n for n, name in enumerate(preferences.order) if name in (candidate.route.name, candidate.route.provider))
    return next(places, len(preferences.order))


def _latency(candidate: Candidate) -> float:
    """Learned; before the first call what the price expects of the run time; else last."""
    if candidate.condition.lesson.latency is not None:
        return candidate.condition.lesson.latency
    return candidate.cost.seconds or float("inf")


def _drawn(candidates: Sequence[Candidate], draw: random.Random) -> list[Candidate]:
    """Drawn one after the other with weight 1/price²; what is free is drawn as if it cost a micro-dollar."""
    left, ranked = list(candidates), []
    while left:
        weights = [1 / max(candidate.cost.micros, 1) ** 2 for candidate in left]
        ranked.append(left.pop(draw.choices(range(len(left)), weights)[0]))
    return ranked


def told(excluded: Sequence[Excluded]) -> str:
    """Every reason in one text: first what will pass, then what the caller can change, then what the operator can.

    What the caller has left out himself comes last, in a sentence of its own. Ends without a full stop.
    """
    own = [one for one in excluded if one.own]
    others = sorted((one for one in excluded if not one.own), key=_rank)
    reasons = "; ".join(f"{one.route.name} {one.reason}" for one in others)
    return ". ".join(filter(None, (reasons, _summed(own))))


def _rank(excluded: Excluded) -> int:
    if excluded.retry_after is not None:
        return 0
    return 1 if excluded.param is not None else 2


def _summed(excluded: Iterable[Excluded]) -> str:
    """The routes that are left out for the same reason, together."""
    by_reason: dict[str, list[str]] = {}
    for one in excluded:
        by_reason.setdefault(one.reason, []).append(one.route.name)
    return "; ".join(_clause(names, reason) for reason, names in by_reason.items())


def _clause(names: list[str], reason: str) -> str:
    if len(names) == 1:
        return f"{names[0]} {reason}"
    return f"{', '.join(names[:-1])} and {names[-1]} {_plural(reason)}"


def _plural(reason: str) -> str:
    return f"are {reason.removeprefix('is ')}" if reason.startswith("is ") else reason
