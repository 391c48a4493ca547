"""The list of our requests that fal's platform API gives, played."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.simulators.fal_desk import Desk, detail
from tests.simulators.fal_jobs import Task


class History:
    """Lists the jobs that have ended, the latest first; with `running` those that have not as well.

    What a job was given is told where `expand=payloads` asks for it, but for those in `withheld`. The documents do not
    say by which of its times a job is within `start` and `end`: here by the one it was sent at.
    """

    def __init__(self, desk: Desk, tasks: Mapping[str, Task]) -> None:
        self._desk = desk
        self._tasks = tasks
        self.running = False
        self.withheld: set[str] = set()

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/models/requests/by-endpoint", self._list)])

    async def _list(self, request: Request) -> Response:
        async def carry_out() -> Response:
            if refused := self._desk.refused(request, "platform"):
                return refused
            asked = request.query_params
            if "endpoint_id" not in asked:
                return detail(422, "endpoint_id is required")
            found = sorted(filter(lambda task: self._matches(task, asked), self._tasks.values()), key=lambda t: -t.sent)
            first, limit = int(asked.get("cursor", "0")), min(int(asked.get("limit", "50")), 100)
            more = first + limit < len(found)
            items = [self._item(task, asked.get("expand") == "payloads") for task in found[first : first + limit]]
            cursor = str(first + limit) if more else None
            return JSONResponse({"items": items, "next_cursor": cursor, "has_more": more})

        return await self._desk.meet("api", request, "list", carry_out)

    def _matches(self, task: Task, asked: Mapping[str, str]) -> bool:
        end = asked.get("end")
        return (
            task.model in asked["endpoint_id"].split(",")
            and asked.get("request_id", task.id) == task.id
            and (self.running or task.done())
            and task.sent >= _seconds(asked.get("start", "2000-01-01"))
            and (end is None or task.sent < _seconds(end))
        )

    def _item(self, task: Task, payloads: bool) -> dict[str, Any]:
        begun = datetime.fromtimestamp(task.sent, UTC).isoformat().replace("+00:00", "Z")
        item: dict[str, Any] = {
            "request_id": task.id,
            "endpoint_id": task.model,
            "sent_at": begun,
            "started_at": begun,
            "ended_at": begun if task.done() else None,
            "status_code": task.end()[0] if task.done() else None,
            "duration": task.run_s,
        }
        if payloads and task.id not in self.withheld:
            item["json_input"] = task.given
        return item


def _seconds(text: str) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
