"""The OpenAPI document of this server: what can be asked, with what, and every answer there is."""

from gateway.api.openapi.document import document

__all__ = ["document"]
