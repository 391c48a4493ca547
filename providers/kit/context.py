"""What every adapter is built from, beside its settings."""

from __future__ import annotations

from dataclasses import dataclass, field

import httpx

from providers.clock import Clock
from providers.http.ssrf import UrlPolicy
from providers.kit.polling import Pace
from providers.kit.results import LEAST_BYTES_PER_S, TRY_S, Fetch, from_strangers


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderContext:
    """What an adapter is given beside the settings of its own section.

    `http` is for the provider's API and alone carries `key`; `downloads` is for results, which lie at addresses that
    `url_policy` allows. `pace` says when to poll, and its clock is the one that all waits go by. `submit_timeout_s`
    bounds a submit and an upload, `poll_timeout_s` a poll, `download_timeout_s` one try to fetch an image, which has to
    arrive at `min_download_bytes_per_s` or more. `max_result_bytes` is the most that an image may have.
    `embedded_worker` is the address of the worker that this gateway started itself, None where it started none.
    """

    http: httpx.AsyncClient
    downloads: httpx.AsyncClient
    url_policy: UrlPolicy
    pace: Pace
    key: str | None = field(default=None, repr=False)
    submit_timeout_s: float = 30.0
    poll_timeout_s: float = 10.0
    download_timeout_s: float = TRY_S
    min_download_bytes_per_s: int = LEAST_BYTES_PER_S
    max_result_bytes: int = 400 * 1024 * 1024
    embedded_worker: str | None = None

    @property
    def clock(self) -> Clock:
        return self.pace.clock


def public_fetch(context: ProviderContext) -> Fetch:
    """Return what fetches results from any address that the context's URL policy allows, without a key."""
    return from_strangers(
        context.downloads,
        context.url_policy,
        least_bytes_per_s=context.min_download_bytes_per_s,
        clock=context.clock,
    )
