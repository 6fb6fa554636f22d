"""Migrations of the store: one line of revisions per domain, so that domains grow without waiting for each other."""
