"""Which repetition of a call began a job."""

import sqlalchemy as sa
from alembic import op

revision = "v0006"
down_revision = "v0005"


def upgrade() -> None:
    """Make the column; the jobs that are there count as begun by first calls."""
    op.add_column("jobs", sa.Column("retry", sa.Integer(), nullable=False, server_default="0"))
