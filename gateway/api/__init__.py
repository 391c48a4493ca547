"""The endpoints as FastAPI routers, one module a resource, and what they share: parameters, results, problems.

May import: gateway.auth, gateway.database, gateway.file_names, gateway.http, gateway.imaging, gateway.jobs,
gateway.ledger, gateway.routing, gateway.settings, gateway.state, gateway.storage, gateway.telemetry, gateway.webhooks,
providers.base, providers.errors, providers.http, normalization.
Libraries: starlette, fastapi, pydantic, typing_extensions.
"""
