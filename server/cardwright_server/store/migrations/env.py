"""What Alembic runs. ``store.migrate`` hands over the connection; there is no offline mode."""

from __future__ import annotations

from alembic import context

from cardwright_server.store.migrate import options


def run() -> None:
    """Migrate, or draft, over the connection that the configuration carries."""
    attributes = context.config.attributes
    connection = attributes["connection"]
    context.configure(connection=connection, **options(connection), **attributes.get("drafting", {}))
    with context.begin_transaction():
        context.run_migrations()


# The name under which Alembic loads this file; importing it as a module of the package does nothing.
if __name__ == "env_py":
    run()
