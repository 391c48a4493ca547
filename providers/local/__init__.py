"""The adapter for the operator's own workers, which speak Cog's HTTP API.

May import: providers.base, providers.clock, providers.errors, providers.http, providers.kit, providers.settings,
providers.fairness, normalization.values.
Libraries: httpx, anyio, typing_extensions.
"""
