"""What Alembic runs around our revisions: it works on the connection and in the transaction of `upgrade`."""

from alembic import context

from pilotage.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by making it anew
)
context.run_migrations()
