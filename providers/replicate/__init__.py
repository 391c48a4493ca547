"""The adapter for Replicate.

May import: providers.base, providers.clock, providers.errors, providers.http, providers.kit, providers.settings,
normalization.values.
Libraries: httpx, anyio, typing_extensions.
"""
