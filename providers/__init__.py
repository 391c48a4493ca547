"""Adapters: each knows its provider's wire format and nothing of OpenAI, prices, rules or other providers.

A provider is one folder here and one row in `gateway/registry.py`; `base.py` is the contract, `settings.py` the base of
a provider's settings, `errors.py` the error tree that carries the policy of the failover loop.

May import: providers.http, providers.kit, normalization.values.
Libraries: anyio, typing_extensions, pydantic.
"""
