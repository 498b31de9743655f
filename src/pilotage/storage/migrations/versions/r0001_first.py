"""The first tables.

Revision 0001, the oldest there is.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Makes all of it."""
    op.create_table(
        "batches",
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("first", Big, nullable=False),
        sa.Column("jobs", sa.Integer(), nullable=False),
        sa.Column("submitted", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("vo", "owner", "id", name="batches_pkey"),
    )
    op.create_index("batches_submitted", "batches", ["submitted"])
    op.create_table(
        "counters",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", Big, nullable=False),
        sa.PrimaryKeyConstraint("name", name="counters_pkey"),
    )
    op.create_table(
        "events",
        sa.Column("id", Big, nullable=False),
        sa.Column("time", sa.Float(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("data", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="events_pkey"),
    )
    op.create_index("events_subject", "events", ["subject"])
    op.create_table(
        "files",
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", Big, nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("used", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("vo", "sha256", name="files_pkey"),
    )
    op.create_index("files_used", "files", ["used"])
    op.create_table(
        "jobs",
        sa.Column("id", Big, autoincrement=False, nullable=False),
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("batch", sa.Text(), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("queue", Big, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("pilot", sa.Text()),
        sa.Column("lease", sa.Text()),
        sa.Column("submitted", sa.Float(), nullable=False),
        sa.Column("started", sa.Float()),
        sa.Column("ended", sa.Float()),
        sa.Column("reason", sa.Text()),
        sa.Column("message", sa.Text()),
        sa.Column("exit_code", Big),
        sa.Column("signal", Big),
        sa.Column("wall_seconds", sa.Float()),
        sa.Column("isolation", sa.Text()),
        sa.Column("kill", sa.Text()),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("result", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="jobs_pkey"),
    )
    op.create_index("jobs_batch", "jobs", ["batch"])
    op.create_index("jobs_vo_state", "jobs", ["vo", "state"])
    op.create_index(
        "jobs_waiting",
        "jobs",
        ["queue", "id"],
        sqlite_where=sa.text("state = 'Waiting'"),
        postgresql_where=sa.text("state = 'Waiting'"),
    )
    op.create_table(
        "leases",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job", Big, nullable=False),
        sa.Column("pilot", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("cores", sa.Integer(), nullable=False),
        sa.Column("charge", sa.Float(), nullable=False),
        sa.Column("leased", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.Column("ended", sa.Float()),
        sa.Column("outcome", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="leases_pkey"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "leases_live",
        "leases",
        ["pilot", "expires"],
        sqlite_where=sa.text("ended IS NULL"),
        postgresql_where=sa.text("ended IS NULL"),
    )
    op.create_table(
        "marks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="marks_pkey"),
    )
    op.create_table(
        "pilots",
        sa.Column("stamp", sa.Text(), nullable=False),
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("site", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("flavour", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text()),
        sa.Column("revision", sa.Text()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text()),
        sa.Column("secret_hash", sa.Text(), nullable=False),
        sa.Column("secret_expires", sa.Float(), nullable=False),
        sa.Column("nonce", sa.Text()),
        sa.Column("sequence", Big, nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("submitted", sa.Float()),
        sa.Column("registered", sa.Float()),
        sa.Column("seen", sa.Float()),
        sa.Column("expires", sa.Float()),
        sa.Column("ended", sa.Float()),
        sa.Column("exit_code", Big),
        sa.Column("phase", sa.Text()),
        sa.Column("node", sa.Text()),
        sa.Column("usage", sa.Text()),
        sa.Column("log_size", Big, nullable=False),
        sa.Column("jobs", sa.Integer(), nullable=False),
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("ordered", sa.Text()),
        sa.Column("order_why", sa.Text()),
        sa.Column("outputs_at", sa.Float()),
        sa.PrimaryKeyConstraint("stamp", name="pilots_pkey"),
    )
    op.create_index(
        "pilots_active",
        "pilots",
        ["resource", "created"],
        sqlite_where=sa.text("ended IS NULL"),
        postgresql_where=sa.text("ended IS NULL"),
    )
    op.create_index("pilots_created", "pilots", ["created"])
    op.create_table(
        "queues",
        sa.Column("id", Big, autoincrement=False, nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("requirements", sa.Text(), nullable=False),
        sa.Column("used", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="queues_pkey"),
    )
    op.create_index("queues_hash", "queues", ["hash"], unique=True)
    op.create_table(
        "resources",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("fence", Big, nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="resources_pkey"),
    )
    op.create_table(
        "tokens",
        sa.Column("id", Big, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("vo", sa.Text()),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("roles", sa.Text(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float()),
        sa.Column("revoked", sa.Float()),
        sa.PrimaryKeyConstraint("id", name="tokens_pkey"),
    )
    op.create_index("tokens_digest", "tokens", ["digest"], unique=True)
    op.create_table(
        "usage",
        sa.Column("vo", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("vo", "owner", name="usage_pkey"),
    )
    op.create_table(
        "pilot_commands",
        sa.Column("pilot", sa.Text(), nullable=False),
        sa.Column("report", sa.Text(), nullable=False),
        sa.Column("index", Big, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("code", Big),
        sa.Column("message", sa.Text()),
        sa.Column("seconds", sa.Float()),
        sa.Column("usage", sa.Text()),
        sa.Column("tail", sa.Text()),
        sa.Column("time", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["pilot"], ["pilots.stamp"], name="pilot_commands_pilot", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("pilot", "report", name="pilot_commands_pkey"),
    )
