"""Route selection: the routes that can serve a request, their order, and the reasons against the others."""

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
    """The current health of a route. `left` is the seconds until its standing may change, `announced` the inputs of its
    worker, if it has one.
    """

    readiness: Readiness
    detail: str = ""
    announced: Announced | None = None
    standing: Standing = "well"
    left: float = 0
    lesson: RunStats = field(default_factory=RunStats)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A route that can serve the request, with its plan, expected cost and health."""

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
    """A route that cannot serve the request, and why.

    `param` names the parameter that excludes it, None if none does; `retry_after` is the seconds until that may change,
    None if unknown; `throttled` is true while the provider throttles us. `own` is true if the client itself excluded
    the route.
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
    """The candidates in the order in which they are tried, and the excluded routes."""

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
    """Select and order a model's routes for a request.

    `conditions` maps each route's name to its health. `strategy` applies if the preferences have none; `draw` is the
    random generator of the balanced strategy. `tell` is passed to plan(). Raises InvalidValue as plan() does.
    """
    candidates: list[Candidate] = []
    excluded: list[Excluded] = []
    for route in model.routes.values():
        result = _consider(model, route, request, conditions, preferences, tell)
        if isinstance(result, Candidate):
            candidates.append(result)
        else:
            excluded.append(result)
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
    """Sort by strategy; then, with precedence, by preference and health; degraded routes come last."""
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
    """The observed latency; before the first call the expected run time of the price; else infinity."""
    if candidate.condition.lesson.latency is not None:
        return candidate.condition.lesson.latency
    return candidate.cost.seconds or float("inf")


def _drawn(candidates: Sequence[Candidate], draw: random.Random) -> list[Candidate]:
    """Drawn one after another with weight 1/price²; a free route counts as one micro-dollar."""
    left, ranked = list(candidates), []
    while left:
        weights = [1 / max(candidate.cost.micros, 1) ** 2 for candidate in left]
        ranked.append(left.pop(draw.choices(range(len(left)), weights)[0]))
    return ranked


def told(excluded: Sequence[Excluded]) -> str:
    """All reasons in one text: first temporary ones, then those the client can change, then those the operator can.

    Routes that the client excluded come last, in a separate sentence. Ends without a full stop.
    """
    own = [one for one in excluded if one.own]
    others = sorted((one for one in excluded if not one.own), key=_rank)
    reasons = "; ".join(f"{one.route.name} {one.reason}" for one in others)
    return ". ".join(filter(None, (reasons, _grouped(own))))


def _rank(excluded: Excluded) -> int:
    if excluded.retry_after is not None:
        return 0
    return 1 if excluded.param is not None else 2


def _grouped(excluded: Iterable[Excluded]) -> str:
    """Routes excluded for the same reason, grouped."""
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
