"""A key's limit of requests a minute: what calls and polls count against."""

from __future__ import annotations

from gateway.api import problems
from gateway.auth.grant import Grant
from gateway.auth.rate_limits import Rates
from gateway.telemetry import metrics


async def count(rates: Rates, grant: Grant) -> dict[str, str]:
    """Count a request against its key's limit; the headers that tell how the key stands, none where it has no limit.

    Raises ApiError 429.
    """
    if grant.rpm is None:
        return {}
    rate = await rates.take(grant.id, grant.rpm)
    if not rate.allowed:
        metrics.REFUSED.labels("rate").inc()
        raise problems.too_many(f"{grant.rpm} requests a minute", rate.retry_after, rate.headers())
    return rate.headers()
