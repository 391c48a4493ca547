"""Which adapter serves which section of `providers.toml`: one line for each provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import httpx

from gateway.config import Config
from gateway.names import EMBEDDED
from gateway.settings import LocalSettings
from providers.base import Provider
from providers.cog import Cog


def build(config: Config, client: httpx.AsyncClient, environ: Mapping[str, str]) -> dict[str, Provider]:
    """Every adapter, over the one shared client."""
    return {name: make(config, client, environ) for name, make in ADAPTERS.items()}


def _local(config: Config, client: httpx.AsyncClient, environ: Mapping[str, str]) -> Provider:
    settings: LocalSettings = config.providers.local
    workers: tuple[str, ...] = ()
    if settings.workers == "embedded":
        workers = (environ[EMBEDDED],) if EMBEDDED in environ else ()
    else:
        workers = settings.workers
    return Cog(
        client,
        workers=workers,
        max_queue=settings.max_queue,
        start_deadline_s=settings.start_deadline_s,
        health_interval_s=settings.health_interval_s,
    )


ADAPTERS: Mapping[str, Callable[[Config, httpx.AsyncClient, Mapping[str, str]], Provider]] = {"local": _local}
