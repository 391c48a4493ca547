"""The adapter for Segmind."""
