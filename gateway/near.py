"""What a misspelt name may have meant: the one search of `normalization.near`, for this room."""

from normalization.near import near

__all__ = ["near"]
