"""Jobs: from a parsed request to its images, across failures, restarts and processes.

`manager.py` holds the running jobs, `executor.py` is the failover loop, `attempts.py` makes one call to a provider.

May import: gateway.auth, gateway.imaging, gateway.ledger, gateway.routing, gateway.storage, gateway.telemetry,
providers.base, providers.clock, providers.errors, providers.http.ids, providers.http.send_hook, providers.memory,
normalization.
Libraries: obstore, sqlalchemy, typing_extensions.
"""
