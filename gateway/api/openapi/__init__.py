"""The OpenAPI document: every operation, with what it takes and every answer.

May import: gateway.api, gateway.auth, gateway.ledger, gateway.routing, gateway.settings, gateway.telemetry,
providers.base, providers.errors, normalization.
Libraries: none.
"""

from gateway.api.openapi.document import document

__all__ = ["document"]
