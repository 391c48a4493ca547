"""What `gateway.toml` and `providers.toml` may say: the schema of the settings, one file for each concern."""

from gateway.settings.providers import ProvidersFile
from gateway.settings.schema import Alias, GatewayFile, GatewaySettings
from gateway.settings.types import ResponseFormat

__all__ = ["Alias", "GatewayFile", "GatewaySettings", "ProvidersFile", "ResponseFormat"]
