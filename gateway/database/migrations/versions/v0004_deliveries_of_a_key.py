"""Whose a webhook's message is: keys take turns, and none waits behind all that another one has."""

import sqlalchemy as sa
from alembic import op

revision = "v0004"
down_revision = "v0003"


def upgrade() -> None:
    """Write each message's key beside it, and find the messages of each without reading those of the others."""
    op.add_column("deliveries", sa.Column("key", sa.String(), nullable=False, server_default=""))
    op.execute("UPDATE deliveries SET key = (SELECT jobs.key FROM jobs WHERE jobs.id = deliveries.job)")
    op.drop_index("deliveries_by_time", table_name="deliveries")
    op.create_index("deliveries_by_key", "deliveries", ["state", "key", "next_at"], unique=False)
