"""The local worker: a separate process that serves an engine over the Cog HTTP API.

The gateway's adapter treats it like any Cog container, and starts one itself through `providers.worker.supervisor`.
It does not read the gateway's config and does not import the gateway.
"""
