"""``cardwright server``: the card management server, and its administration."""

from __future__ import annotations

import click

from .tree import LazyGroup

TABLE = {
    "audit": ("server_audit", "Verify, export and anchor the audit chain"),
    "backup": ("server_backup", "Write a backup while the server works"),
    "device": ("server_admin_device", "Devices: stock, holders, suspension, incidents, ends"),
    "enrol-first": ("server_first", "Enrol the first administrator and security officer"),
    "init": ("server_init", "Make an installation, and the credential of its first operators"),
    "migrate": ("server_migrate", "Bring the database to this program's version"),
    "operator": ("server_admin_operator", "Operators: accounts, their keys and roles"),
    "policy": ("server_admin_policy", "Device policies: list, draft, publish, assign"),
    "request": ("server_admin_request", "Requests: list, create, approve, deny, cancel"),
    "restore": ("server_restore", "Restore a backup, and what happened since"),
    "run": ("server_run", "Serve"),
    "status": ("server_status", "How the server of a data folder stands"),
    "user": ("server_admin_user", "Persons, their groups and passwords"),
    "vault": ("server_admin_vault", "Master keys of the vault: rotate, destroy"),
    "workstation": ("server_admin_workstation", "Workstations: tokens, list, revocation"),
}
"""Module and short help of each command; only those that start something import the server."""


@click.group("server", cls=LazyGroup, table=TABLE)
def command() -> None:
    """The card management server.

    'init' makes an installation in a data folder, 'run' serves it, 'enrol-first' enrols its first two operators.
    """
