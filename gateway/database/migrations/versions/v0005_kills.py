"""How many processes ended while they worked on a job."""

import sqlalchemy as sa
from alembic import op

revision = "v0005"
down_revision = "v0004"


def upgrade() -> None:
    """Make the column; of the jobs that are there nothing is known."""
    op.add_column("jobs", sa.Column("kills", sa.Integer(), nullable=False, server_default="0"))
