"""Images: read from their bytes, prepared for a provider, finished for the client.

A format is added as one module of `formats/` and one entry in `sniff.py`.

May import: normalization.values.
Libraries: PIL.
"""
