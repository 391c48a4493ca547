"""The ledger: a durable record of every job and attempt, and the queries on it.

May import: gateway.auth, gateway.database, gateway.process, gateway.settings, gateway.telemetry, providers.base,
providers.errors, normalization.
Libraries: sqlalchemy, typing_extensions.
"""
