"""Webhooks: callers are told of their jobs, and providers tell of theirs."""
