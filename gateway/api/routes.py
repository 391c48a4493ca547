"""Every path, its methods, its handler and who may call it; and the probes: health, readiness, metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api import edits, files, jobs, keys, models, requests, webhooks
from gateway.api.submission import DRY_RUN, grant_of
from gateway.http.auth import GuardedRoute, Permission, RouteRights, admins_only
from gateway.state import State
from gateway.telemetry import metrics
from normalization.parameters.schema import Model
from providers.base import Readiness


async def healthz(request: Request) -> Response:
    """The process answers."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """200 once any model has a route that can serve, while the ledger takes what is written and the process stays.

    A process whose last heartbeat was not written is not ready: others may take it for gone.

    An admin is told it model by model and route by route: a probe has no use for that, and a stranger has.
    """
    state: State = request.app.state.darkroom
    ledger = state.jobs.ledger.up
    models = {model.id: _routes(state, model) for model in state.config.models.values()}
    ready = any(route["state"] == Readiness.READY.value for routes in models.values() for route in routes.values())
    ready = ready and ledger and not state.jobs.leaving.is_set()
    body = {"status": "ready" if ready else "not ready", "ledger": "up" if ledger else "down"}
    detail = {"models": models} if grant_of(request).admin else {}
    return JSONResponse({**body, **detail}, 200 if ready else 503)


@admins_only
async def expose_metrics(request: Request) -> Response:
    """All metrics in Prometheus' text format."""
    return Response(metrics.expose(), media_type=metrics.CONTENT_TYPE)


def _routes(state: State, model: Model) -> dict[str, dict[str, str]]:
    return {
        name: {"state": found.readiness.value, "detail": found.detail, "standing": found.standing}
        for name, found in state.conditions(model).items()
    }


PREFIXES = ("/openai/v1", "/v1")
"""The same calls, with and without OpenAI's own part of the address."""

_PAGE = frozenset({"limit", "after"})
_JOBS = _PAGE | {"model", "status"}
_REQUESTS = _JOBS | {"provider", "key", "created_after", "created_before", "summary"}

UNDER_BOTH: Mapping[str, Mapping[str, RouteRights]] = {
    "/images/edits": {"POST": RouteRights(edits.edit, Permission.METERED, frozenset(DRY_RUN))},
    "/images/jobs": {"GET": RouteRights(jobs.list_jobs, Permission.KEY, _JOBS)},
    "/images/jobs/{id}": {"GET": RouteRights(jobs.read_job, Permission.KEY, frozenset({"wait"}))},
    "/images/jobs/{id}/cancel": {"POST": RouteRights(jobs.cancel_job, Permission.KEY)},
    "/keys": {
        "POST": RouteRights(keys.create_key, Permission.ADMIN),
        "GET": RouteRights(keys.list_keys, Permission.ADMIN),
    },
    "/keys/{id}": {
        "GET": RouteRights(keys.read_key, Permission.ADMIN),
        "PATCH": RouteRights(keys.change_key, Permission.ADMIN),
        "DELETE": RouteRights(keys.revoke_key, Permission.ADMIN),
    },
    "/webhooks/secret": {"GET": RouteRights(webhooks.read_secret, Permission.KEY)},
    "/models": {"GET": RouteRights(models.list_models, Permission.KEY)},
    "/models/{id:path}": {"GET": RouteRights(models.read_model, Permission.KEY, frozenset({"schema"}))},
}
ALONE: Mapping[str, Mapping[str, RouteRights]] = {
    "/v1/requests": {"GET": RouteRights(requests.list_requests, Permission.KEY, _REQUESTS)},
    "/v1/requests/{id}": {"GET": RouteRights(requests.read_request, Permission.KEY)},
    "/v1/requests/{id}/payload": {"DELETE": RouteRights(requests.forget_payload, Permission.KEY)},
    "/hooks/{provider}/{attempt}/{mac}": {"POST": RouteRights(webhooks.parse_webhook, Permission.PUBLIC, query=None)},
    "/files/{name}": {"GET": RouteRights(files.read_file, Permission.PUBLIC, query=None)},
    "/metrics": {"GET": RouteRights(expose_metrics, Permission.ADMIN, query=None)},
    # A probe comes by the address of a process, whatever names the server has.
    "/healthz": {"GET": RouteRights(healthz, Permission.PUBLIC, query=None, any_host=True)},
    "/readyz": {"GET": RouteRights(readyz, Permission.OPTIONAL, query=None, any_host=True)},
}


def routes(*, metrics: bool = True) -> Iterator[GuardedRoute]:
    """All of them, with the metrics where they have no port of their own. HEAD is answered wherever GET is."""
    for prefix in PREFIXES:
        for path, rows in UNDER_BOTH.items():
            yield GuardedRoute(prefix + path, rows)
    for path, rows in ALONE.items():
        if metrics or path != "/metrics":
            yield GuardedRoute(path, rows)
