"""What Alembic runs. ``store.migrate`` hands over the connection; there is no offline mode."""

from __future__ import annotations

from alembic import context

from cardwright_server.store.migrate import options

connection = context.config.attributes["connection"]
drafting = context.config.attributes.get("drafting", {})
context.configure(connection=connection, **options(connection), **drafting)
with context.begin_transaction():
    context.run_migrations()
