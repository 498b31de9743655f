"""Revisions of the configuration."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

LIVE = sa.text("state IN ('current', 'canary')")


def upgrade() -> None:
    """A table of its own, which an older service does not look at; and the index that allows one current, one
    canary."""
    op.create_table(
        "configurations",
        sa.Column("number", Big, nullable=False, autoincrement=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("parent", Big, nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("vo", sa.Text()),
        sa.Column("time", sa.Float(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("canary", sa.Text()),
        sa.Column("files", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="configurations_pkey"),
    )
    op.create_index(
        "configurations_live", "configurations", ["state"], unique=True, sqlite_where=LIVE, postgresql_where=LIVE
    )
