"""Every path, its methods, who answers, and who may call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.api import edits, files, health, jobs, keys, models, requests, webhooks
from gateway.api.dry_run import DRY_RUN
from gateway.api.rights import Access, GuardedRoute, Row

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
    "/metrics": {"GET": Row(health.expose_metrics, Access.ADMIN, query=None)},
    # A probe comes by the address of a process, whatever names the server has.
    "/healthz": {"GET": Row(health.healthz, Access.PUBLIC, query=None, any_host=True)},
    "/readyz": {"GET": Row(health.readyz, Access.OPTIONAL, query=None, any_host=True)},
}


def routes(*, metrics: bool = True) -> Iterator[GuardedRoute]:
    """All of them, with the metrics where they have no port of their own. HEAD is answered wherever GET is."""
    for prefix in PREFIXES:
        for path, rows in UNDER_BOTH.items():
            yield GuardedRoute(prefix + path, rows)
    for path, rows in ALONE.items():
        if metrics or path != "/metrics":
            yield GuardedRoute(path, rows)
