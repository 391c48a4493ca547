"""What several adapters need: their context, polling, progress, the rule for results, webhook signatures.

May import: providers.base, providers.clock, providers.errors, providers.http, normalization.values.
Libraries: httpx, anyio.
"""
