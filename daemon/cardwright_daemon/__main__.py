"""``python -m cardwright_daemon``: the daemon until SIGTERM or SIGINT."""

from __future__ import annotations

from .start import main

main()
