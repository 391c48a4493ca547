"""The registry of providers: the shipped rows, and those that other packages register as entry points."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import httpx
import pytest
from typing_extensions import override

from gateway.registry import PROVIDERS, ProviderParts, build
from gateway.settings import providers as sections
from gateway.settings.loader import SHIPPED, Config, ConfigError, load
from providers.base import NO_CONTEXT, AttemptContext, BaseProvider, Handle, Outcome, Readiness, Upstream, UpstreamJob
from providers.clock import CLOCK
from providers.errors import Unknown
from providers.http.ssrf import UrlPolicy
from providers.kit.context import ProviderContext
from providers.kit.polling import Pace
from providers.row import ProviderRow
from providers.settings import BaseUrl, CloudSettings


class ElsewhereSettings(CloudSettings):
    base_url: BaseUrl = "https://api.elsewhere.example"
    key_env: str = "ELSEWHERE_KEY"


class Elsewhere(BaseProvider):
    """An adapter with nothing of its own but what it has to have."""

    name = "elsewhere"

    def __init__(self, settings: ElsewhereSettings, context: ProviderContext) -> None:
        super().__init__(key=context.key, key_env=settings.key_env)
        self.base_url = settings.base_url

    @override
    async def submit(self, job: UpstreamJob, link: AttemptContext = NO_CONTEXT) -> Handle:
        raise Unknown("not asked")

    @override
    async def wait(self, handle: Handle, deadline: float, link: AttemptContext = NO_CONTEXT) -> Outcome:
        raise Unknown("not asked")


ROW = ProviderRow("elsewhere", Elsewhere, ElsewhereSettings)
NAMED_ALIKE = ProviderRow("fal", Elsewhere, ElsewhereSettings)
NO_ROW = "text"
UPSTREAM = Upstream(model="m")


def install(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let a package be installed that registers these names of this module."""
    monkeypatch.setitem(sys.modules, "package_elsewhere", sys.modules[__name__])
    points = EntryPoints(EntryPoint(name, f"package_elsewhere:{name}", sections.ENTRY_POINTS) for name in names)
    monkeypatch.setattr(sections, "entry_points", lambda group: points.select(group=group))


async def built(config: Config, environ: dict[str, str]) -> dict[str, Any]:
    async with httpx.AsyncClient() as client:
        parts = ProviderParts(
            config=config, environ=environ, http=client, downloads=client, url_policy=UrlPolicy(), pace=Pace(CLOCK)
        )
        return dict(build(parts))


def test_each_row_has_a_section() -> None:
    """A provider in the registry has its section in `providers.toml`, with the same settings; and no section lacks a
    row."""
    fields = sections.ProvidersFile.model_fields

    assert {row.name: row.settings for row in PROVIDERS} == {name: fields[name].annotation for name in fields}


async def test_shipped_providers_without_keys_say_which_variable_is_missing() -> None:
    """The variable is the configured one, not the default."""
    environ = {"DARKROOM_PROVIDERS__SEGMIND__KEY_ENV": "OTHER_NAME"}
    adapters = await built(load(SHIPPED, environ), environ)

    assert list(adapters) == [row.name for row in PROVIDERS]
    assert adapters["segmind"].readiness(UPSTREAM) == (Readiness.OFF, "OTHER_NAME is not set")


async def test_an_adapter_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row is all there is: it has a section, settings from the environment, a key, and is a provider of routes."""
    install(monkeypatch, "ROW")
    environ = {"DARKROOM_PROVIDERS__ELSEWHERE__BASE_URL": "http://127.0.0.1:1", "ELSEWHERE_KEY": "k1,k2"}
    config = load(SHIPPED, environ)
    adapters = await built(config, environ)

    assert dict(config.providers)["elsewhere"].base_url == "http://127.0.0.1:1"
    assert adapters["elsewhere"].readiness(UPSTREAM) == (Readiness.READY, "")
    off = (await built(config, {}))["elsewhere"]
    assert off.readiness(UPSTREAM) == (Readiness.OFF, "ELSEWHERE_KEY is not set")
    with pytest.raises(ConfigError, match="DARKROOM_PROVIDERS__ELSEWHERE__BASE_URL"):
        load(SHIPPED, {"DARKROOM_PROVIDERS__ELSEWHERE__BASE_URL": "ftp://x"})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("MISSING",), "package_elsewhere:MISSING, which cannot be loaded"),
        (("NO_ROW",), "package_elsewhere:NO_ROW, which is no ProviderRow"),
        (("NAMED_ALIKE",), "fal: found a name that another provider has"),
    ],
)
def test_an_entry_point_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], message: str
) -> None:
    """The configuration is refused with the entry point, not the start with a traceback."""
    install(monkeypatch, *names)
    with pytest.raises(ConfigError, match=message):
        load(SHIPPED, {})
