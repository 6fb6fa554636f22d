"""Revisions, called <domain>_<number>; scripts/migration.py writes the first draft of one."""
