"""Parameters: parsed, planned and converted for each route by the table.

A converter is added in `convert.py`, an emulation in `emulate.py`.

May import: normalization.images, normalization.values.
Libraries: pydantic.
"""
