"""Starting the daemon as a process: protection first, then the log, then everything else."""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cardwright_cardops.errors import CardwrightError

from .config import Config, load
from .machine import Machine, load_machine
from .process import harden

QUIET: Final = 1.0
"""Seconds for the first calls, before the rest is loaded."""


def serve(config: Config, ready: Callable[[Path], None]) -> None:
    """Run until SIGTERM or SIGINT. ``ready`` gets the socket once calls are answered.

    Raises ConfigInvalid, FolderUnsafe, DaemonRunning, OSError.
    """
    harden()
    # What is loaded now stays: looking through it for garbage again and again takes a tenth of the start.
    gc.disable()
    logging.basicConfig(
        level=config.log_level.upper(), stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", force=True
    )
    asyncio.run(_serve(config, load_machine(), ready))


async def _serve(config: Config, machine: Machine, ready: Callable[[Path], None]) -> None:
    from .app import Daemon

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Daemon(config, machine=machine) as daemon:
        ready(daemon.socket)
        rest = asyncio.create_task(load_the_rest())
        await stop.wait()
        rest.cancel()


async def load_the_rest() -> None:
    """What only sessions need, once the first calls are answered. A session that is there first loads it itself."""
    await asyncio.sleep(QUIET)
    await asyncio.to_thread(importlib.import_module, "cardwright_daemon.token_relay")
    gc.freeze()
    gc.enable()


def main() -> None:
    """The command line of the module; ``cardwright daemon`` has the same options."""
    parser = argparse.ArgumentParser(prog="cardwright-daemon", description="The workstation daemon.")
    parser.add_argument("--config", type=Path, help="the configuration file (TOML)")
    try:
        serve(load(parser.parse_args().config), lambda socket: print(f"ready {socket}", flush=True))
    except CardwrightError as error:
        print(f"Error {error.code}: {error.explain()}", file=sys.stderr)
        sys.exit(1)
