"""The adapter for fal.ai."""
