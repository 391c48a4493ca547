"""The adapter for Segmind.

May import: providers.base, providers.clock, providers.errors, providers.http, providers.kit, providers.settings,
normalization.values.
Libraries: httpx, anyio, pybase64, typing_extensions.
"""
