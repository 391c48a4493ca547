"""What `gateway.toml` and `providers.toml` may say: the schema of the settings, one file for each concern."""

from gateway.settings.gateway import Alias, GatewayFile, GatewaySettings
from gateway.settings.kinds import ResponseFormat
from gateway.settings.providers import ProvidersFile

__all__ = ["Alias", "GatewayFile", "GatewaySettings", "ProvidersFile", "ResponseFormat"]
