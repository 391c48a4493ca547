"""Adapters as tests build them: from settings and context in one list of keywords."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

import httpx

from providers.apiframe.adapter import Apiframe
from providers.apiframe.settings import ApiframeSettings
from providers.clock import CLOCK
from providers.fal.adapter import Fal
from providers.fal.settings import FalSettings
from providers.http.ssrf import UrlPolicy
from providers.kit.context import ProviderContext
from providers.kit.polling import Pace
from providers.local.adapter import LocalProvider
from providers.local.settings import LocalSettings
from providers.replicate.adapter import Replicate
from providers.replicate.settings import ReplicateSettings
from providers.segmind.adapter import Segmind
from providers.segmind.settings import SegmindSettings
from providers.settings import ProviderSettings

S = TypeVar("S", bound=ProviderSettings)
_CONTEXT = frozenset(field.name for field in fields(ProviderContext))


def split(kind: type[S], given: dict[str, Any]) -> tuple[S, ProviderContext, dict[str, Any]]:
    """Settings, context, and what the adapter takes besides. Settings are not validated: tests go to the limits."""
    clock = given.pop("clock", CLOCK)
    given.setdefault("pace", Pace(clock))
    given.setdefault("url_policy", UrlPolicy())
    given.setdefault("downloads", given["http"])
    assert given["pace"].clock is clock, "an adapter waits by the clock of its pace"
    settings = {name: given.pop(name) for name in list(given) if name in kind.model_fields}
    context = {name: given.pop(name) for name in list(given) if name in _CONTEXT}
    return kind.model_construct(**settings), ProviderContext(**context), given


def local_provider(http: httpx.AsyncClient, **given: Any) -> LocalProvider:
    settings, context, rest = split(LocalSettings, {"max_queue": 64, **given, "http": http})
    return LocalProvider(settings, context, **rest)


def replicate(**given: Any) -> Replicate:
    settings, context, rest = split(ReplicateSettings, given)
    return Replicate(settings, context, **rest)


def fal(**given: Any) -> Fal:
    settings, context, rest = split(FalSettings, given)
    return Fal(settings, context, **rest)


def segmind(**given: Any) -> Segmind:
    settings, context, rest = split(SegmindSettings, given)
    return Segmind(settings, context, **rest)


def apiframe(**given: Any) -> Apiframe:
    settings, context, rest = split(ApiframeSettings, given)
    return Apiframe(settings, context, **rest)
