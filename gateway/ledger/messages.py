"""What callers are to be told at addresses of their own: written with what it tells of, and sent from there."""

from __future__ import annotations

import json
import secrets
import time
from datetime import UTC, datetime

from gateway.ledger.records import Json, Order

EVENTS = ("progress", "completed", "failed")


def messages(order: Order, event: str, *, state: str, progress: float | None = None) -> list[Json]:
    """The rows to write for an event of a job: one where its caller asked to be told of it, else none.

    The body is thin, for webhooks are read by logs and proxies: the job itself says the rest.
    """
    if order.webhook_url is None or event not in (order.webhook_events or EVENTS[1:]):
        return []
    now = time.time()
    data: Json = {
        "id": order.id,
        "object": "image.job",
        "status": state,
        "model": order.model,
        "created_at": int(order.created_at),
    }
    if progress is not None:
        data["progress"] = progress
    stamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = json.dumps({"type": f"image.job.{event}", "timestamp": stamp, "data": data}, separators=(",", ":"))
    return [
        {
            "id": f"msg_{secrets.token_hex(12)}",
            "job": order.id,
            "key": order.key,
            "url": order.webhook_url,
            "event": event,
            "body": body,
            "state": "pending",
            "tries": 0,
            "created_at": now,
            "next_at": now,
        }
    ]
