"""The table: how each parameter reaches each provider, and everything that is done to an image here.

`parameters` plans requests by the table; `images` reads, prepares and finishes images; `values` holds the frozen
values that the whole project shares. Pure functions: nothing here waits, sends or remembers.

May import: normalization.
Libraries: pydantic, PIL.
"""
