"""`[gateway]`: who may call, how often and for how much."""

from __future__ import annotations

from normalization.rules import Frozen


class AccessSettings(Frozen):
    """Keys and their limits."""
