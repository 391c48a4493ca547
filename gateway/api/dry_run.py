"""`?dry_run=true`: what would be tried, at which price, with which payload; nothing is sent and nothing is spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from starlette.responses import JSONResponse, Response

from gateway.api.parameters import Asked
from gateway.http.headers import flag_of
from gateway.routing.pricing import MICROS
from gateway.routing.selection import Candidate, Choice
from normalization.values import Image, JoinAlpha, Resize, Step, Value

DRY_RUN = ("dry_run", "dryRun")
"""The parameter in its spellings."""


def is_dry_run(query: Mapping[str, str]) -> bool:
    """Whether the query asks for a dry run, in either spelling. Raises ApiError 400 for neither true nor false."""
    return True in {flag_of(query, name) for name in DRY_RUN}


def answer(asked: Asked, choice: Choice) -> Response:
    """The candidates in their order, and why the others are out."""
    body = {
        "dry_run": True,
        "model": asked.model.id,
        "candidates": [_candidate(candidate) for candidate in choice.candidates],
        "excluded": [
            {"provider": e.route.provider, "route": e.route.name, "reason": e.reason, "param": e.param}
            for e in choice.excluded
        ],
    }
    return JSONResponse(body)


def _candidate(candidate: Candidate) -> dict[str, Any]:
    route, plan = candidate.route, candidate.plan
    return {
        "provider": route.provider,
        "route": route.name,
        "model": route.model or None,
        "cost": candidate.cost.usd,
        "cost_at_most": candidate.cost.most / MICROS,
        "cost_currency": "USD",
        "components": {name: micros / MICROS for name, micros in candidate.cost.components.items()},
        "healthy": candidate.healthy,
        "degraded": route.degraded is not None,
        "calls": len(plan.calls),
        "payload": {key: _shown(value) for key, value in plan.calls[0].items()},
        "output": str(plan.output) if plan.output else None,
        "delivered": str(plan.delivered) if plan.delivered else None,
        "finish": [_step(step) for step in plan.finish],
        "warnings": list(plan.notes),
    }


def _shown(value: Value) -> Any:
    """A payload's value; a picture as its size and hash."""
    if isinstance(value, Image):
        picture = {"format": value.format, "width": value.width, "height": value.height, "bytes": len(value.data)}
        return {"picture": {**picture, "sha256": value.digest()} if value.data else picture}
    if isinstance(value, dict):
        return {key: _shown(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shown(inner) for inner in value]
    return value


def _step(step: Step) -> dict[str, Any]:
    if isinstance(step, Resize):
        return {"step": "resize", "size": str(step.size), "mode": step.mode, "background": step.background}
    if isinstance(step, JoinAlpha):
        return {"step": "join_alpha"}
    return {"step": "transcode", **asdict(step)}
