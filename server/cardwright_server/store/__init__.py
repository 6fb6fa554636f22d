"""The database: engine, units of work, tables of every domain, migrations, and the second medium."""
