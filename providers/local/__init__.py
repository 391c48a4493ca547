"""The adapter for the operator's own workers, which speak Cog's HTTP API."""
