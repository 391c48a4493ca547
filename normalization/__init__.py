"""Parameters and images: the table that maps each parameter to each provider, and all image processing.

`parameters` plans requests by the table; `images` reads, prepares and finishes images; `values` holds the frozen
values that the whole project shares. Pure functions, without I/O or state.

May import: normalization.
Libraries: pydantic, PIL.
"""
