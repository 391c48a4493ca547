"""The ledger: every job and every attempt, written before it matters, and what is asked of it afterwards.

May import: gateway.auth, gateway.database, gateway.process, gateway.settings, gateway.telemetry, providers.base,
providers.errors, normalization.
Libraries: sqlalchemy, typing_extensions.
"""
