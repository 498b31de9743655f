"""Logs and outputs of pilots have their own retention: when they were deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

KEPT = sa.text("logs_purged IS NULL")


def upgrade() -> None:
    """A column that may be null, so that an older service can go on; and the index that the purge reads."""
    op.add_column("pilots", sa.Column("logs_purged", sa.Float()))
    op.create_index("pilots_logs", "pilots", ["ended"], sqlite_where=KEPT, postgresql_where=KEPT)
