"""The database: one schema over SQLite and Postgres, its migrations, and the one writer of a process.

May import: gateway.settings, gateway.telemetry.
Libraries: sqlalchemy, alembic.
"""
