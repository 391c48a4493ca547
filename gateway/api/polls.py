"""Asking for a job: it counts for the key's requests a minute, as the call that began it did."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.api import failures
from gateway.api.placing import grant_of
from gateway.state import State
from gateway.telemetry import metrics


async def counted(request: Request) -> dict[str, str]:
    """Count a request against its key's limit; the headers that tell how the key stands. Raises ApiError 429."""
    state: State = request.app.state.darkroom
    grant = grant_of(request)
    if grant.rpm is None:
        return {}
    rate = await state.doors.rates.take(grant.id, grant.rpm)
    if not rate.allowed:
        metrics.REFUSED.labels("rate").inc()
        raise failures.too_many(f"{grant.rpm} requests a minute", rate.retry_after, rate.headers())
    return rate.headers()


def with_rate(response: Response, headers: dict[str, str]) -> Response:
    """The answer with these headers."""
    response.headers.update(headers)
    return response
