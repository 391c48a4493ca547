"""The registry of providers: one row each, from its section of `providers.toml` to its adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypedDict

import httpx

from gateway.names import EMBEDDED
from gateway.settings.loader import Config
from gateway.settings.provider_keys import keys_of
from providers.accounts import AccountKey, Accounts
from providers.apiframe.adapter import Apiframe
from providers.base import Provider
from providers.clock import Clock
from providers.fal.adapter import Fal
from providers.http.ssrf import UrlPolicy
from providers.kit.polling import Pace
from providers.local.adapter import LocalProvider
from providers.replicate.adapter import Replicate
from providers.segmind.adapter import Segmind


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderParts:
    """What adapters are built from. Two clients: one for APIs, one for results, which never carries a key."""

    config: Config
    environ: Mapping[str, str] = field(repr=False)
    http: httpx.AsyncClient
    downloads: httpx.AsyncClient
    url_policy: UrlPolicy
    pace: Pace
    """Its clock is the one that all of them wait by."""


def build(parts: ProviderParts) -> dict[str, Provider]:
    """Every adapter."""
    return {name: make(parts) for name, make in ADAPTERS.items()}


def _local(parts: ProviderParts) -> Provider:
    settings = parts.config.providers.local
    workers: tuple[str, ...] = ()
    if settings.workers == "embedded":
        workers = (parts.environ[EMBEDDED],) if EMBEDDED in parts.environ else ()
    else:
        workers = settings.workers
    return LocalProvider(
        parts.http,
        workers=workers,
        max_queue=settings.max_queue,
        start_deadline_s=settings.start_deadline_s,
        health_interval_s=settings.health_interval_s,
        download_timeout_s=parts.config.gateway.download_timeout_s,
        min_download_bytes_per_s=parts.config.gateway.min_download_bytes_per_s,
        clock=parts.pace.clock,
    )


def _replicate(parts: ProviderParts) -> Provider:
    settings = parts.config.providers.replicate
    make = partial(
        Replicate,
        parts.http,
        parts.downloads,
        base_url=settings.base_url,
        **_cloud(parts),
    )
    return _accounts(parts, "replicate", lambda key: make(key=key))


def _fal(parts: ProviderParts) -> Provider:
    settings = parts.config.providers.fal
    make = partial(
        Fal,
        parts.http,
        parts.downloads,
        queue_url=settings.queue_url,
        run_url=settings.run_url,
        rest_url=settings.rest_url,
        api_url=settings.api_url,
        mode=settings.mode,
        **_cloud(parts),
    )
    return _accounts(parts, "fal", lambda key: make(key=key))


def _segmind(parts: ProviderParts) -> Provider:
    settings = parts.config.providers.segmind
    make = partial(
        Segmind,
        parts.http,
        parts.downloads,
        base_url=settings.base_url,
        upload_url=settings.upload_url,
        **_cloud(parts),
    )
    return _accounts(parts, "segmind", lambda key: make(key=key))


def _apiframe(parts: ProviderParts) -> Provider:
    settings = parts.config.providers.apiframe
    make = partial(
        Apiframe,
        parts.http,
        parts.downloads,
        base_url=settings.base_url,
        **_cloud(parts),
    )
    return _accounts(parts, "apiframe", lambda key: make(key=key))


def _accounts(parts: ProviderParts, name: str, make: Callable[[str | None], Provider]) -> Provider:
    """The provider with all of its keys; off where it has none."""
    keys = [AccountKey(name, key) for key in keys_of(parts.config.providers, name, parts.environ)]
    if not keys:
        return make(None)
    return Accounts(keys, lambda key: make(key.reveal()), park_s=parts.config.gateway.account_suspend_s)


class _Cloud(TypedDict):
    url_policy: UrlPolicy
    pace: Pace
    clock: Clock
    submit_timeout_s: float
    poll_timeout_s: float
    download_timeout_s: float
    min_download_bytes_per_s: int
    max_result_bytes: int


def _cloud(parts: ProviderParts) -> _Cloud:
    """What every adapter of a cloud is given alike."""
    settings = parts.config.gateway
    return {
        "url_policy": parts.url_policy,
        "pace": parts.pace,
        "clock": parts.pace.clock,
        "submit_timeout_s": settings.submit_timeout_s,
        "poll_timeout_s": settings.poll_timeout_s,
        "download_timeout_s": settings.download_timeout_s,
        "min_download_bytes_per_s": settings.min_download_bytes_per_s,
        "max_result_bytes": settings.max_result_bytes,
    }


ADAPTERS: Mapping[str, Callable[[ProviderParts], Provider]] = {
    "local": _local,
    "replicate": _replicate,
    "fal": _fal,
    "segmind": _segmind,
    "apiframe": _apiframe,
}
