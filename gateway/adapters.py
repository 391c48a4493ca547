"""Which adapter serves which section of `providers.toml`: one line for each provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypedDict

import httpx

from gateway.config import Config
from gateway.names import EMBEDDED
from providers.apiframe import Apiframe
from providers.base import Provider
from providers.cog import Cog
from providers.fal import Fal
from providers.guard import Guard
from providers.polling import Pace
from providers.replicate import Replicate
from providers.segmind import Segmind


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What adapters are built from. Two clients: one for APIs, one for results, which never carries a key."""

    config: Config
    environ: Mapping[str, str] = field(repr=False)
    http: httpx.AsyncClient
    downloads: httpx.AsyncClient
    guard: Guard
    pace: Pace = field(default_factory=Pace)

    def key(self, name: str) -> str | None:
        """The key in an environment variable; None where it is empty or not set."""
        return self.environ.get(name, "").strip() or None


def build(parts: Parts) -> dict[str, Provider]:
    """Every adapter."""
    return {name: make(parts) for name, make in ADAPTERS.items()}


def _local(parts: Parts) -> Provider:
    settings = parts.config.providers.local
    workers: tuple[str, ...] = ()
    if settings.workers == "embedded":
        workers = (parts.environ[EMBEDDED],) if EMBEDDED in parts.environ else ()
    else:
        workers = settings.workers
    return Cog(
        parts.http,
        workers=workers,
        max_queue=settings.max_queue,
        start_deadline_s=settings.start_deadline_s,
        health_interval_s=settings.health_interval_s,
    )


def _replicate(parts: Parts) -> Provider:
    settings = parts.config.providers.replicate
    return Replicate(
        parts.http,
        parts.downloads,
        key=parts.key(settings.key_env),
        base_url=settings.base_url,
        **_cloud(parts),
    )


def _fal(parts: Parts) -> Provider:
    settings = parts.config.providers.fal
    return Fal(
        parts.http,
        parts.downloads,
        key=parts.key(settings.key_env),
        queue_url=settings.queue_url,
        run_url=settings.run_url,
        rest_url=settings.rest_url,
        api_url=settings.api_url,
        mode=settings.mode,
        **_cloud(parts),
    )


def _segmind(parts: Parts) -> Provider:
    settings = parts.config.providers.segmind
    return Segmind(
        parts.http,
        parts.downloads,
        key=parts.key(settings.key_env),
        base_url=settings.base_url,
        upload_url=settings.upload_url,
        **_cloud(parts),
    )


def _apiframe(parts: Parts) -> Provider:
    settings = parts.config.providers.apiframe
    return Apiframe(
        parts.http,
        parts.downloads,
        key=parts.key(settings.key_env),
        base_url=settings.base_url,
        **_cloud(parts),
    )


class _Cloud(TypedDict):
    guard: Guard
    pace: Pace
    submit_timeout_s: float
    poll_timeout_s: float
    max_result_bytes: int


def _cloud(parts: Parts) -> _Cloud:
    """What every adapter of a cloud is given alike."""
    settings = parts.config.gateway
    return {
        "guard": parts.guard,
        "pace": parts.pace,
        "submit_timeout_s": settings.submit_timeout_s,
        "poll_timeout_s": settings.poll_timeout_s,
        "max_result_bytes": settings.max_result_bytes,
    }


ADAPTERS: Mapping[str, Callable[[Parts], Provider]] = {
    "local": _local,
    "replicate": _replicate,
    "fal": _fal,
    "segmind": _segmind,
    "apiframe": _apiframe,
}
