"""The OpenAPI document: what FastAPI generates of the routes, with what it cannot say.

May import: gateway.api, gateway.http, gateway.settings, normalization.
Libraries: fastapi, starlette.
"""

from gateway.api.openapi.document import document
from gateway.api.openapi.pages import pages

__all__ = ["document", "pages"]
