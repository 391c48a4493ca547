"""What several adapters need: polling, progress, the results rule, webhook signatures.

May import: providers.base, providers.clock, providers.errors, providers.http, normalization.values.
Libraries: httpx, anyio.
"""
