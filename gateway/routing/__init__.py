"""The choice of a route: pure functions over values, with the clock handed in.

May import: providers.base, providers.errors, normalization.
Libraries: none.
"""
