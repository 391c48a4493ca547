"""Which routes can serve a request, and in which order they are tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gateway.routing.pricing import Estimate, estimate
from normalization.model import Model, Route
from normalization.plan import Ineligible, plan
from normalization.values import ImageRequest, Plan, Size
from providers.base import Readiness


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A route that can serve the request, with its plan and what it will cost."""

    route: Route
    plan: Plan
    cost: Estimate
    ready: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A route that cannot, and why. `param` names what in the request stands in the way, None where nothing does."""

    route: Route
    reason: str
    param: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The candidates in the order they are to be tried, and the rest."""

    candidates: Sequence[Candidate]
    excluded: Sequence[Excluded]


def choose(model: Model, request: ImageRequest, readiness: Mapping[str, tuple[Readiness, str]]) -> Choice:
    """Sort a model's routes for a request. `readiness` is each route's, by its name. Raises Invalid as plan() does."""
    candidates: list[Candidate] = []
    excluded: list[Excluded] = []
    real = any(not route.degraded and readiness[name][0] is not Readiness.OFF for name, route in model.routes.items())
    for name, route in model.routes.items():
        state, why = readiness[name]
        if state is Readiness.OFF:
            excluded.append(Excluded(route=route, reason=why))
            continue
        if route.degraded and real and not request.params.get("allow_degraded"):
            reason = "is degraded, and a real route is configured; allow_degraded=true admits it"
            excluded.append(Excluded(route=route, reason=reason, param="allow_degraded"))
            continue
        try:
            planned = plan(model, route, request)
        except Ineligible as reason_:
            excluded.append(Excluded(route=route, reason=reason_.message, param=reason_.param))
            continue
        source = Size(width=request.images[0].width, height=request.images[0].height)
        cost = estimate(route.price, source, planned)
        candidates.append(Candidate(route=route, plan=planned, cost=cost, ready=state is Readiness.READY))
    # A degraded route costs little, and is still the last resort of a caller who admits it.
    candidates.sort(key=lambda c: (c.route.degraded is not None, not c.ready, c.cost.micros))
    return Choice(candidates=candidates, excluded=excluded)
