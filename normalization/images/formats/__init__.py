"""The image formats, read at the level of their bytes and never decoded.

Each module has a `scan` that returns what `base.Scan` names.

May import: normalization.images.icc, normalization.values.
Libraries: PIL.
"""
