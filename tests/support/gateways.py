"""A gateway for the whole session, one with settings of its own where a test needs that, and the SDK over both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol, cast

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import ImagesResponse

from tests.support.running import Serve, Served, serving


class Edit(Protocol):
    """`client.images.edit`, of the client that waits or of the one that is awaited."""

    def __call__(self, **fields: Any) -> ImagesResponse: ...


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The gateway as it is after a checkout: no key, the shipped config, the embedded worker."""
    with serving(tmp_path_factory.mktemp("server")) as served:
        yield served


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start gateways with other settings; they are stopped when the module's tests are through."""
    with ExitStack() as stack:

        def start(*arguments: str, ready: int = 200, **environ: str) -> Served:
            folder = tmp_path_factory.mktemp("serve")
            return stack.enter_context(serving(folder, arguments, environ, ready=ready))

        yield start


@pytest.fixture(scope="session")
def client(server: Served) -> Iterator[OpenAI]:
    """The official SDK as it is, its retries included."""
    with OpenAI(base_url=server.base_url, api_key="none") as made:
        yield made


@pytest.fixture(params=["sync", "async"])
def edit(request: pytest.FixtureRequest, client: OpenAI, server: Served) -> Iterator[Edit]:
    """`images.edit` of each of the two clients."""
    if request.param == "sync":
        yield cast("Edit", client.images.edit)
        return
    with asyncio.Runner() as runner:
        awaited = AsyncOpenAI(base_url=server.base_url, api_key="none")

        def call(**fields: Any) -> ImagesResponse:
            response: ImagesResponse = runner.run(awaited.images.edit(**fields))
            return response

        yield call
        runner.run(awaited.close())
