"""Parsers of the image formats: they read the structure of a file and never decode pixels.

Each format's module has a function `scan` that returns a `base.Scan`.

May import: normalization.images.icc, normalization.values.
Libraries: PIL.
"""
