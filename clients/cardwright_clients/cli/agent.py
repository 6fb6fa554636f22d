"""``cardwright agent``: notifications of what is due, with *Start* and *Later*."""

from __future__ import annotations

import getpass
import logging
import os
import signal
from datetime import timedelta

import click

from .daemon_line import run
from .output import say


@click.command("agent")
@click.option("--account", metavar="NAME", help="Your account name, for servers that ask who you are; else your login.")
@click.option("--later", type=click.FloatRange(0, 720, min_open=True), default=1.0, show_default=True,
              metavar="HOURS", help="How long 'Later' puts off.")  # fmt: skip
@click.option("--spread", type=click.FloatRange(0, 86400), default=60.0, show_default=True, metavar="SECONDS",
              help="Over how long questions what is due are spread at the start.")  # fmt: skip
def command(account: str | None, later: float, spread: float) -> None:
    """Show what is due for your cards as notifications of the desktop, until interrupted.

    Start begins what was shown, and the daemon asks for your PIN; Later puts it off. Progress and result are shown,
    too. The daemon may be started and restarted at any time.
    """
    from ..agent.agent import Agent, Manner
    from ..agent.notices import DesktopNotices

    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    manner = Manner(account if account is not None else getpass.getuser(), timedelta(hours=later), spread)

    async def work() -> None:
        notices = DesktopNotices()
        if not await notices.require():
            say("Notifications have no buttons here: use 'cardwright update' to start what is due.", err=True)
        await Agent(notices, manner).run()

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run(work())
