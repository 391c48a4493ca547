"""The database under the ledger: one schema over SQLite and Postgres, its migrations, and the one writer."""
