"""Every address, its methods, and who answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api import edits, files, health, hooks, image_jobs, key_list, models, requests

Endpoint = Callable[[Request], Awaitable[Response]]

PREFIXES = ("/openai/v1", "/v1")
"""The same calls, with and without OpenAI's own part of the address."""

UNDER_BOTH: Mapping[str, Mapping[str, Endpoint]] = {
    "/images/edits": {"POST": edits.edit},
    "/images/jobs": {"GET": image_jobs.list_jobs},
    "/images/jobs/{id}": {"GET": image_jobs.read_job},
    "/images/jobs/{id}/cancel": {"POST": image_jobs.cancel_job},
    "/keys": {"POST": key_list.create_key, "GET": key_list.list_keys},
    "/keys/{id}": {"GET": key_list.read_key, "PATCH": key_list.change_key, "DELETE": key_list.revoke_key},
    "/webhooks/secret": {"GET": hooks.read_secret},
    "/models": {"GET": models.list_models},
    "/models/{id:path}": {"GET": models.read_model},
}
ALONE: Mapping[str, Mapping[str, Endpoint]] = {
    "/v1/requests": {"GET": requests.list_requests},
    "/v1/requests/{id}": {"GET": requests.read_request},
    "/v1/requests/{id}/payload": {"DELETE": requests.forget_payload},
    "/hooks/{provider}/{attempt}/{mac}": {"POST": hooks.hear},
    "/files/{name}": {"GET": files.read_file},
    "/metrics": {"GET": health.expose_metrics},
    "/healthz": {"GET": health.healthz},
    "/readyz": {"GET": health.readyz},
}


def routes(*, metrics: bool = True) -> Iterator[Route]:
    """All of them, with the metrics where they have no port of their own. HEAD is answered wherever GET is."""
    for prefix in PREFIXES:
        for path, methods in UNDER_BOTH.items():
            yield route(prefix + path, methods)
    for path, methods in ALONE.items():
        if metrics or path != "/metrics":
            yield route(path, methods)


def route(path: str, methods: Mapping[str, Endpoint]) -> Route:
    """One address: a single route, so that a method which is not allowed is told of all that are."""
    if len(methods) == 1:
        ((method, endpoint),) = methods.items()
        return Route(path, endpoint, methods=[method])

    async def answer(request: Request) -> Response:
        return await methods["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, answer, methods=list(methods))
