"""The local worker: a process of its own that speaks the Cog HTTP API, with engines beside it.

The gateway's adapter talks to it as it talks to any Cog container, and starts one for itself through
`providers.worker.supervisor`. It reads no config files, and knows nothing of the gateway.
"""
