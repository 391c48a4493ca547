"""Every router of the API, and the paths that they serve; and the probes: health, readiness and metrics."""

from __future__ import annotations

from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api import edits, files, jobs, keys, models, requests, webhooks
from gateway.api.paths import success
from gateway.api.schemas import AliveJson, ReadinessJson, RouteStateJson
from gateway.api.submission import grant_of
from gateway.http.auth import GuardedPath, GuardedRouter, Permission, admins_only, guarded_paths
from gateway.http.errors import ErrorJson
from gateway.state import State
from gateway.telemetry import metrics
from normalization.parameters.schema import Model
from providers.base import Readiness

probes = GuardedRouter()
metrics_router = GuardedRouter()


# A probe comes by the address of a process, whatever names the server has.
@probes.serve(
    "GET",
    "/healthz",
    Permission.PUBLIC,
    any_query=True,
    any_host=True,
    operation_id="readHealth",
    summary="The process answers.",
    responses={200: success("It does.", AliveJson)},
)
async def healthz(request: Request) -> Response:
    """The process answers."""
    alive: AliveJson = {"status": "ok"}
    return JSONResponse(alive)


@probes.serve(
    "GET",
    "/readyz",
    Permission.OPTIONAL,
    any_query=True,
    any_host=True,
    operation_id="readReadiness",
    summary="Whether any model has a route that can serve requests; with an admin's key, which.",
    responses={
        200: success("The server is ready.", ReadinessJson),
        503: success("The server is not ready.", ReadinessJson | ErrorJson),
    },
)
async def readyz(request: Request) -> Response:
    """200 if any model has a route that can serve, the ledger is writable, and the process is not shutting down.

    A process whose last heartbeat was not written is not ready: others may consider it dead.

    Only an admin gets the state of each model and route: a probe does not need it, and an attacker could use it.
    """
    state: State = request.app.state.darkroom
    ledger = state.jobs.ledger.up
    models = {model.id: _routes(state, model) for model in state.config.models.values()}
    ready = any(route["state"] == Readiness.READY.value for routes in models.values() for route in routes.values())
    ready = ready and ledger and not state.jobs.leaving.is_set()
    body: ReadinessJson = {"status": "ready" if ready else "not ready", "ledger": "up" if ledger else "down"}
    if grant_of(request).admin:
        body["models"] = models
    return JSONResponse(body, 200 if ready else 503)


@metrics_router.serve(
    "GET",
    "/metrics",
    Permission.ADMIN,
    any_query=True,
    operation_id="readMetrics",
    summary="All metrics in Prometheus' text format. Needs an admin's key.",
    responses={200: success("The metrics.", content={metrics.CONTENT_TYPE: {"type": "string"}})},
)
@admins_only
async def expose_metrics(request: Request) -> Response:
    """All metrics in Prometheus' text format."""
    return Response(metrics.expose(), media_type=metrics.CONTENT_TYPE)


def _routes(state: State, model: Model) -> dict[str, RouteStateJson]:
    return {
        name: {"state": found.readiness.value, "detail": found.detail, "standing": found.standing}
        for name, found in state.conditions(model).items()
    }


ROUTERS: list[GuardedRouter] = [
    edits.router,
    jobs.router,
    keys.router,
    webhooks.router,
    models.router,
    requests.router,
    webhooks.hooks,
    files.router,
    probes,
]


def routers(*, metrics: bool = True) -> list[GuardedRouter]:
    """All of them, with the metrics unless those have a port of their own."""
    return [*ROUTERS, metrics_router] if metrics else ROUTERS


def paths(*, metrics: bool = True) -> Iterator[GuardedPath]:
    """Every path. HEAD is answered wherever GET is."""
    return guarded_paths(routers(metrics=metrics))
