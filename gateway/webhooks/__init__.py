"""Webhooks to clients: the outbox in the ledger's database, its sender, and the signatures.

May import: gateway.database, gateway.telemetry, providers.fairness, providers.http.
Libraries: httpx, sqlalchemy.
"""
