"""The `darkroom` commands, one module each.

May import: gateway, normalization, providers.worker.
Libraries: any.
"""
