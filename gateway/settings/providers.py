"""`providers.toml`: a section for each provider, those of other packages included."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeAlias

from pydantic import create_model

from gateway.settings.errors import ConfigError, ConfigProblem
from normalization.parameters.rules import Frozen
from providers.apiframe.settings import ApiframeSettings
from providers.fal.settings import FalSettings
from providers.local.settings import LocalSettings
from providers.replicate.settings import ReplicateSettings
from providers.row import ProviderRow
from providers.segmind.settings import SegmindSettings
from providers.settings import ProviderSettings

ENTRY_POINTS = "darkroom.providers"
"""The group of entry points by which a package registers its `ProviderRow`."""


class ProvidersFile(Frozen):
    """The whole of `providers.toml`: one section for each provider that there is an adapter for."""

    local: LocalSettings = LocalSettings()
    replicate: ReplicateSettings = ReplicateSettings()
    fal: FalSettings = FalSettings()
    segmind: SegmindSettings = SegmindSettings()
    apiframe: ApiframeSettings = ApiframeSettings()


Row: TypeAlias = "ProviderRow[Any]"


def installed() -> tuple[Row, ...]:
    """The providers that other packages register, by name. Raises ConfigError for one that cannot be used."""
    rows = [_loaded(point) for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name)]
    taken = set(ProvidersFile.model_fields)
    for row in rows:
        if row.name in taken:
            raise _unusable(row.name, "a name that another provider has", "a name of its own")
        taken.add(row.name)
    return tuple(rows)


def providers_file() -> type[ProvidersFile]:
    """The schema of `providers.toml` with the sections of all providers. Raises ConfigError."""
    rows = installed()
    if not rows:
        return ProvidersFile
    sections: dict[str, Any] = {row.name: (row.settings, row.settings()) for row in rows}
    return create_model("ProvidersFile", __base__=ProvidersFile, **sections)


def _loaded(point: EntryPoint) -> Row:
    try:
        row = point.load()
    except Exception as exc:
        raise _unusable(point.name, f"{point.value}, which cannot be loaded ({exc})", "a ProviderRow") from exc
    if not isinstance(row, ProviderRow) or not issubclass(row.settings, ProviderSettings):
        raise _unusable(point.name, f"{point.value}, which is no ProviderRow", "a ProviderRow with ProviderSettings")
    return row


def _unusable(name: str, found: str, expected: str) -> ConfigError:
    return ConfigError([ConfigProblem(f"entry point {ENTRY_POINTS}", name, found, expected)])
