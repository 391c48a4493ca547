"""The adapter for Replicate."""
