"""Image work: a pool of threads with a budget of pixels, and sandboxed processes that decode untrusted images.

May import: gateway.telemetry, providers.fairness, normalization.
Libraries: none.
"""
