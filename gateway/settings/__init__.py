"""Settings: `gateway.toml`, `providers.toml`, the models and the environment, read, validated and explained.

A setting is added in `schema.py` or `providers.py`.

May import: gateway.routing, providers.settings, providers.row, providers.local.settings, providers.replicate.settings,
providers.fal.settings, providers.segmind.settings, providers.apiframe.settings, normalization.
Libraries: pydantic, httpx.
"""

from gateway.settings.providers import ProvidersFile
from gateway.settings.schema import Alias, GatewayFile, GatewaySettings
from gateway.settings.types import ResponseFormat

__all__ = ["Alias", "GatewayFile", "GatewaySettings", "ProvidersFile", "ResponseFormat"]
