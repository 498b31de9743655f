"""What a resource was configured to be is kept while it is served: its pilots outlive a changed configuration."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """A column that may be null, so that an older service can go on."""
    op.add_column("resources", sa.Column("settings", sa.Text()))
