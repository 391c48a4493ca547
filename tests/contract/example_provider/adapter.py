"""Example: a provider that answers one JSON POST with its images, as addresses or base64. Copy it to begin a new one.

It lists no jobs, has no idempotency keys and no webhooks, and cannot cancel: `BaseProvider` has defaults for that.
"""

from __future__ import annotations

import time

from typing_extensions import override

from providers.base import NO_CONTEXT, AttemptContext, BaseProvider, Handle, Outcome, UpstreamJob
from providers.errors import Undecodable, Unknown
from providers.http.bodies import Body, json_body, leaves, read_json
from providers.http.errors import refusal
from providers.kit.context import ProviderContext, public_fetch
from providers.kit.held import HeldRequests
from providers.kit.results import Named, ResultCollector
from providers.kit.session import HttpSession
from providers.row import ProviderRow
from providers.settings import BaseUrl, CloudSettings

NAME = "example"


class ExampleSettings(CloudSettings):
    """`[example]`."""

    base_url: BaseUrl = "https://api.example.com"
    key_env: str = "EXAMPLE_API_KEY"


class Example(BaseProvider):
    """The adapter. A job lives in the request that waits for its answer, in this process only."""

    name = NAME

    def __init__(self, settings: ExampleSettings, context: ProviderContext) -> None:
        super().__init__(key=context.key, key_env=settings.key_env)
        self._url = f"{settings.base_url}/v1/upscale"
        credentials = {"authorization": f"Bearer {context.key}"}
        self._session = HttpSession(NAME, context.http, credentials, most_bytes=2 * context.max_result_bytes)
        self._held: HeldRequests[list[Named]] = HeldRequests(NAME, context.clock)
        self._collector = ResultCollector(
            NAME, public_fetch(context), most=context.max_result_bytes, clock=context.clock
        )

    @override
    async def submit(self, job: UpstreamJob, link: AttemptContext = NO_CONTEXT) -> Handle:
        body = json_body({"model": job.upstream.model, **job.payload})
        await link.sending({})
        self._held.start(job.id, self._images(body))
        return Handle(provider=NAME, id=job.id, held=True)

    @override
    async def wait(self, handle: Handle, deadline: float, link: AttemptContext = NO_CONTEXT) -> Outcome:
        named = await self._held.answer(handle.id, deadline)
        link.succeeded()
        try:
            return Outcome(images=await self._collector.collect(named, deadline))
        finally:
            self._held.let_go(handle.id, keep=True)

    @override
    async def aclose(self) -> None:
        await self._held.aclose()

    async def _images(self, body: Body) -> list[Named]:
        response, raw = await self._session.post_json(self._url, body, timeout_s=120)
        if not response.is_success:
            raise refusal(NAME, response, raw, now=time.time())
        try:
            return leaves(await read_json(raw), ("images", "url", "b64_json"))
        except Undecodable as exc:
            raise Unknown(f"{NAME}: the answer is not JSON") from exc


ROW = ProviderRow(NAME, Example, ExampleSettings)
