"""Jobs: from a request that was parsed to its images, over failures, restarts and other processes.

`manager.py` holds the running jobs, `executor.py` is the failover loop, `attempts.py` one call of a provider.

May import: gateway.auth, gateway.imaging, gateway.ledger, gateway.routing, gateway.storage, gateway.telemetry,
providers.base, providers.clock, providers.errors, providers.http.ids, providers.http.send_hook, providers.memory,
normalization.
Libraries: obstore, sqlalchemy, typing_extensions.
"""
