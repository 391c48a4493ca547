"""API keys: who may call, how often and for how much."""
