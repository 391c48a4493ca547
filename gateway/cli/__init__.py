"""The `darkroom` commands, one module each.

May import: gateway, normalization, providers.settings, providers.worker.
Libraries: any.
"""
