"""Alembic's folder: `versions/` has the migrations."""
