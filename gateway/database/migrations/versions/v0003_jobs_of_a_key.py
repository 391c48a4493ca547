"""Indices for what is looked up of one key's jobs: those that go on, and those that a repeated call may be."""

from alembic import op

revision = "v0003"
down_revision = "v0002"


def upgrade() -> None:
    """Make them: without, each look reads every job that the key has ever had."""
    op.create_index("jobs_by_key_and_state", "jobs", ["key", "state"], unique=False)
    op.drop_index("jobs_by_fingerprint", table_name="jobs")
    op.create_index("jobs_by_fingerprint", "jobs", ["key", "fingerprint", "created_at"], unique=False)
