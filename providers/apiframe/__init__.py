"""The adapter for Apiframe."""
