"""The adapter for the operator's own workers, which speak Cog's HTTP API.

May import: providers.base, providers.clock, providers.errors, providers.http, providers.kit, normalization.values,
providers.fairness.
Libraries: httpx, anyio, typing_extensions.
"""
