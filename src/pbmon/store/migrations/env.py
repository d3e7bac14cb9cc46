"""What Alembic runs the steps in: a connection and a transaction that `schema.upgrade` opened."""

from __future__ import annotations

from alembic import context

from pbmon.store import schema
from pbmon.store.engine import SCHEMA
from pbmon.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=schema.VERSION_TABLE,
    version_table_schema=SCHEMA if connection.dialect.name == "postgresql" else None,
    include_schemas=True,
)
with context.begin_transaction():
    context.run_migrations()
