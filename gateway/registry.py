"""The registry of providers: one row each, and how the adapters are built from the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import httpx

from gateway.names import EMBEDDED
from gateway.settings.loader import Config
from gateway.settings.provider_keys import keys_of
from gateway.settings.providers import Row, installed
from providers.accounts import AccountKey, Accounts
from providers.apiframe.adapter import Apiframe
from providers.apiframe.settings import ApiframeSettings
from providers.base import Provider
from providers.fal.adapter import Fal
from providers.fal.settings import FalSettings
from providers.http.ssrf import UrlPolicy
from providers.kit.context import ProviderContext
from providers.kit.polling import Pace
from providers.local.adapter import LocalProvider
from providers.local.settings import LocalSettings
from providers.replicate.adapter import Replicate
from providers.replicate.settings import ReplicateSettings
from providers.row import ProviderRow
from providers.segmind.adapter import Segmind
from providers.segmind.settings import SegmindSettings
from providers.settings import CloudSettings

PROVIDERS: tuple[Row, ...] = (
    ProviderRow("local", LocalProvider, LocalSettings),
    ProviderRow("replicate", Replicate, ReplicateSettings),
    ProviderRow("fal", Fal, FalSettings),
    ProviderRow("segmind", Segmind, SegmindSettings),
    ProviderRow("apiframe", Apiframe, ApiframeSettings),
)
"""The providers that come with Darkroom. Their sections of `providers.toml` are in `gateway/settings/providers.py`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderParts:
    """What adapters are built from. There are two clients: one for APIs, one for results, which never carries a key."""

    config: Config
    environ: Mapping[str, str] = field(repr=False)
    http: httpx.AsyncClient
    downloads: httpx.AsyncClient
    url_policy: UrlPolicy
    pace: Pace
    """All adapters wait by its clock."""


def build(parts: ProviderParts) -> dict[str, Provider]:
    """Build every adapter: the shipped ones and those of other packages. Raises ConfigError."""
    context = _context(parts)
    return {row.name: _provider(row, context, parts) for row in _rows()}


def _rows() -> Iterator[Row]:
    yield from PROVIDERS
    yield from installed()


def _provider(row: Row, context: ProviderContext, parts: ProviderParts) -> Provider:
    """The adapter of a provider, with all of its keys; without a key it is off."""
    settings = getattr(parts.config.providers, row.name)
    found = isinstance(settings, CloudSettings) and keys_of(parts.config.providers, row.name, parts.environ)
    if not found:
        return row.adapter(settings, context)
    keys = [AccountKey(row.name, key) for key in found]
    return Accounts(
        keys,
        lambda key: row.adapter(settings, replace(context, key=key.reveal())),
        park_s=parts.config.gateway.account_suspend_s,
    )


def _context(parts: ProviderParts) -> ProviderContext:
    settings = parts.config.gateway
    return ProviderContext(
        http=parts.http,
        downloads=parts.downloads,
        url_policy=parts.url_policy,
        pace=parts.pace,
        submit_timeout_s=settings.submit_timeout_s,
        poll_timeout_s=settings.poll_timeout_s,
        download_timeout_s=settings.download_timeout_s,
        min_download_bytes_per_s=settings.min_download_bytes_per_s,
        max_result_bytes=settings.max_result_bytes,
        embedded_worker=parts.environ.get(EMBEDDED),
    )
