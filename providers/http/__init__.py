"""Outgoing HTTP: the client, JSON bodies with images, downloads, and the guard against SSRF.

The gateway uses it too, for the URLs of clients and for webhooks.

May import: providers.base, providers.clock, providers.errors, providers.memory, normalization.values.
Libraries: httpx, httpx_aiohttp, aiohttp, anyio, pybase64, typing_extensions.
"""
