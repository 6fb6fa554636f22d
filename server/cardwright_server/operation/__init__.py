"""Backup and restore of an installation (S11)."""
