"""Every path, its methods, its handler and who may call it; and the probes: health, readiness, metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api import edits, files, jobs, keys, models, requests, webhooks
from gateway.api.submission import DRY_RUN, grant_of
from gateway.http.auth import Access, GuardedRoute, Row, admins_only
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

UNDER_BOTH: Mapping[str, Mapping[str, Row]] = {
    "/images/edits": {"POST": Row(edits.edit, Access.METERED, frozenset(DRY_RUN))},
    "/images/jobs": {"GET": Row(jobs.list_jobs, Access.KEY, _JOBS)},
    "/images/jobs/{id}": {"GET": Row(jobs.read_job, Access.KEY, frozenset({"wait"}))},
    "/images/jobs/{id}/cancel": {"POST": Row(jobs.cancel_job, Access.KEY)},
    "/keys": {"POST": Row(keys.create_key, Access.ADMIN), "GET": Row(keys.list_keys, Access.ADMIN)},
    "/keys/{id}": {
        "GET": Row(keys.read_key, Access.ADMIN),
        "PATCH": Row(keys.change_key, Access.ADMIN),
        "DELETE": Row(keys.revoke_key, Access.ADMIN),
    },
    "/webhooks/secret": {"GET": Row(webhooks.read_secret, Access.KEY)},
    "/models": {"GET": Row(models.list_models, Access.KEY)},
    "/models/{id:path}": {"GET": Row(models.read_model, Access.KEY, frozenset({"schema"}))},
}
ALONE: Mapping[str, Mapping[str, Row]] = {
    "/v1/requests": {"GET": Row(requests.list_requests, Access.KEY, _REQUESTS)},
    "/v1/requests/{id}": {"GET": Row(requests.read_request, Access.KEY)},
    "/v1/requests/{id}/payload": {"DELETE": Row(requests.forget_payload, Access.KEY)},
    "/hooks/{provider}/{attempt}/{mac}": {"POST": Row(webhooks.hear, Access.PUBLIC, query=None)},
    "/files/{name}": {"GET": Row(files.read_file, Access.PUBLIC, query=None)},
    "/metrics": {"GET": Row(expose_metrics, Access.ADMIN, query=None)},
    # A probe comes by the address of a process, whatever names the server has.
    "/healthz": {"GET": Row(healthz, Access.PUBLIC, query=None, any_host=True)},
    "/readyz": {"GET": Row(readyz, Access.OPTIONAL, query=None, any_host=True)},
}


def routes(*, metrics: bool = True) -> Iterator[GuardedRoute]:
    """All of them, with the metrics where they have no port of their own. HEAD is answered wherever GET is."""
    for prefix in PREFIXES:
        for path, rows in UNDER_BOTH.items():
            yield GuardedRoute(prefix + path, rows)
    for path, rows in ALONE.items():
        if metrics or path != "/metrics":
            yield GuardedRoute(path, rows)
