"""The adapter for fal.ai.

May import: providers.base, providers.clock, providers.errors, providers.http, providers.kit, providers.settings,
normalization.values.
Libraries: httpx, anyio, nacl, typing_extensions.
"""
