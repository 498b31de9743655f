"""The tables. Times are unix seconds, JSON is text (made and read by us: no database looks into it), digests are hex.
 A change here is a change in `migrations`: a test compares the two. Expand first (new columns with defaults), contract
in a later release, so that two versions of the service can share a PostgreSQL database.
"""

from sqlalchemy import BigInteger, Column, Float, ForeignKey, Index, Integer, MetaData, Table, Text, literal_column

REVISION = "0004"
"""The newest migration that this code knows: what a new database is stamped with."""

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s",
        "fk": "%(table_name)s_%(column_0_name)s",
        "pk": "%(table_name)s_pkey",
    }
)

Big = BigInteger().with_variant(Integer, "sqlite")

queues = Table(
    "queues",
    metadata,
    Column("id", Big, primary_key=True, autoincrement=False),
    Column("hash", Text, nullable=False),
    Column("vo", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("requirements", Text, nullable=False),
    Column("used", Float, nullable=False),
    Index("queues_hash", "hash", unique=True),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Big, primary_key=True, autoincrement=False),
    Column("vo", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("batch", Text, nullable=False),
    Column("name", Text),
    Column("state", Text, nullable=False),
    Column("queue", Big, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("pilot", Text),
    Column("lease", Text),
    Column("submitted", Float, nullable=False),
    Column("started", Float),
    Column("ended", Float),
    Column("reason", Text),
    Column("message", Text),
    Column("exit_code", Big),
    Column("signal", Big),
    Column("wall_seconds", Float),
    Column("isolation", Text),
    Column("kill", Text),
    Column("spec", Text, nullable=False),
    Column("result", Text),
)

# Constants, not parameters: only so may a database use a partial index.
WAITING = jobs.c.state == literal_column("'Waiting'")

Index("jobs_waiting", jobs.c.queue, jobs.c.id, sqlite_where=WAITING, postgresql_where=WAITING)
Index("jobs_vo_state", jobs.c.vo, jobs.c.state)
Index("jobs_batch", jobs.c.batch)

batches = Table(
    "batches",
    metadata,
    Column("vo", Text, primary_key=True),
    Column("owner", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("first", Big, nullable=False),
    Column("jobs", Integer, nullable=False),
    Column("submitted", Float, nullable=False),
    Index("batches_submitted", "submitted"),
)

leases = Table(
    "leases",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job", Big, nullable=False),
    Column("pilot", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("cores", Integer, nullable=False),
    Column("charge", Float, nullable=False),
    Column("leased", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("ended", Float),
    Column("outcome", Text),
    sqlite_with_rowid=False,
)

LIVE = leases.c.ended.is_(None)

Index("leases_live", leases.c.pilot, leases.c.expires, sqlite_where=LIVE, postgresql_where=LIVE)

pilots = Table(
    "pilots",
    metadata,
    Column("stamp", Text, primary_key=True),
    Column("vo", Text, nullable=False),
    Column("site", Text, nullable=False),
    Column("resource", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("flavour", Text, nullable=False),
    Column("digest", Text),
    Column("revision", Text),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("reference", Text),
    Column("secret_hash", Text, nullable=False),
    Column("secret_expires", Float, nullable=False),
    Column("nonce", Text),
    Column("sequence", Big, nullable=False),
    Column("created", Float, nullable=False),
    Column("submitted", Float),
    Column("registered", Float),
    Column("seen", Float),
    Column("expires", Float),
    Column("ended", Float),
    Column("exit_code", Big),
    Column("phase", Text),
    Column("node", Text),
    Column("usage", Text),
    Column("log_size", Big, nullable=False),
    Column("jobs", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    Column("ordered", Text),
    Column("order_why", Text),
    Column("outputs_at", Float),
    Column("logs_purged", Float),
    Index("pilots_created", "created"),
)

ACTIVE = pilots.c.ended.is_(None)

Index("pilots_active", pilots.c.resource, pilots.c.created, sqlite_where=ACTIVE, postgresql_where=ACTIVE)

KEPT = pilots.c.logs_purged.is_(None)

Index("pilots_logs", pilots.c.ended, sqlite_where=KEPT, postgresql_where=KEPT)

pilot_commands = Table(
    "pilot_commands",
    metadata,
    Column("pilot", Text, ForeignKey("pilots.stamp", ondelete="CASCADE"), primary_key=True),
    Column("report", Text, primary_key=True),
    Column("index", Big, nullable=False),
    Column("name", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("code", Big),
    Column("message", Text),
    Column("seconds", Float),
    Column("usage", Text),
    Column("tail", Text),
    Column("time", Float, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", Big, primary_key=True),
    Column("time", Float, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("data", Text),
    Index("events_subject", "subject"),
)

usage = Table(
    "usage",
    metadata,
    Column("vo", Text, primary_key=True),
    Column("owner", Text, primary_key=True),
    Column("value", Float, nullable=False),
    Column("at", Float, nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Big, nullable=False),
)

marks = Table(
    "marks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("at", Float, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Big, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("vo", Text),
    Column("owner", Text, nullable=False),
    Column("roles", Text, nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float),
    Column("revoked", Float),
    Index("tokens_digest", "digest", unique=True),
)

files = Table(
    "files",
    metadata,
    Column("vo", Text, primary_key=True),
    Column("sha256", Text, primary_key=True),
    Column("size", Big, nullable=False),
    Column("created", Float, nullable=False),
    Column("used", Float, nullable=False),
    Index("files_used", "used"),
)

resources = Table(
    "resources",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("fence", Big, nullable=False),
    Column("expires", Float, nullable=False),
    Column("settings", Text),
)

configurations = Table(
    "configurations",
    metadata,
    Column("number", Big, primary_key=True, autoincrement=False),
    Column("digest", Text, nullable=False),
    Column("parent", Big, nullable=False),
    Column("author", Text, nullable=False),
    Column("vo", Text),
    Column("time", Float, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("canary", Text),
    Column("files", Text, nullable=False),  # last: SQLite reads through a long value to what follows it
)

LIVE_CONFIGURATION = configurations.c.state.in_((literal_column("'current'"), literal_column("'canary'")))

# One of each at most, whatever happens at the same time.
Index(
    "configurations_live",
    configurations.c.state,
    unique=True,
    sqlite_where=LIVE_CONFIGURATION,
    postgresql_where=LIVE_CONFIGURATION,
)
