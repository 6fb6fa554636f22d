"""``cardwright report``: the workstation, for the help desk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .daemon_line import at_daemon, document
from .output import json_option, say, show_fields, show_json, show_table
from .status import LINKS

if TYPE_CHECKING:
    from ..sdk.daemon import DaemonClient
    from ..sdk.values import WorkstationReport


@click.command("report")
@json_option
def command(as_json: bool) -> None:
    """Show versions, states and codes of recent errors, for the help desk.

    Nothing in it says who you are or which card you have.
    """

    async def work(daemon: DaemonClient) -> WorkstationReport:
        return await daemon.report()

    report = at_daemon(work)
    if as_json:
        shown = document(report)
        shown["libraries"] = dict(report.libraries)
        show_json(shown)
        return
    link = LINKS[report.link] + (f" ({report.link_error})" if report.link_error else "")
    show_fields(
        [
            ("version", report.version or "-"),
            ("python", report.python),
            ("platform", report.platform),
            ("libraries", ", ".join(f"{name} {version or '-'}" for name, version in report.libraries)),
            ("since", f"{report.started_at:%Y-%m-%d %H:%M} UTC" if report.started_at else "-"),
            ("server", link),
            ("smart cards", report.service or "can be used"),
            ("protected", "yes" if report.hardened else "no"),
            ("listeners", str(report.listeners)),
            ("refused", str(report.refused)),
        ]
    )
    for reader in report.readers:
        say(f"reader {reader.name}: {reader.problem or ('a card' if reader.has_card else 'no card')}")
    for module in report.modules:
        say(f"module {module.operation}: {module.code}")
    if report.errors:
        rows = [(f"{one.at:%Y-%m-%d %H:%M:%S}" if one.at else "-", one.code, one.operation) for one in report.errors]
        show_table(rows, ("UTC", "CODE", "IN"))
