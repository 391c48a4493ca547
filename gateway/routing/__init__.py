"""Route selection: pure functions over values; clocks are passed in.

May import: providers.base, providers.errors, normalization.
Libraries: none.
"""
