"""HTTP between bytes and requests: the server, its middleware, authentication, bodies and errors.

Nothing here knows a job.

May import: gateway.auth, gateway.database, gateway.file_names, gateway.settings, gateway.telemetry,
providers.fairness, providers.errors, providers.http, normalization.
Libraries: starlette, fastapi, pydantic, uvicorn, httpx, h11, httptools, pybase64, python_multipart, typing_extensions.
"""
