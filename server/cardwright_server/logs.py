"""Structured logs that cannot name a person: only known keys pass, and only values of known shapes."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final
from uuid import UUID

import structlog

Event = MutableMapping[str, Any]

ALLOWED: Final[Mapping[str, re.Pattern[str]]] = {
    key: re.compile(pattern, re.ASCII)
    for keys, pattern in (
        # Words of ours, in lower case: no sentence fits, nor a name as people write it.
        ("level logger event action outcome state kind front role", r"[a-z0-9]+([._-][a-z0-9]+){0,8}"),
        ("code error", r"[A-Z][A-Z0-9_]{0,60}|[A-Z][A-Za-z]{0,60}(Error|Exception|Exists|Failed|Refused)"),
        ("call", r"[A-Z][A-Za-z]{0,40}\.[A-Z][A-Za-z]{0,40}"),
        ("version slot status algorithm profile policy", r"[\w.-]{1,60}"),
        ("id org person operator workstation device request session correlation", r"[0-9a-f-]{32,36}"),
        ("count number attempts bytes port pid epoch generation position retries block fence", r"-?\d{1,19}"),
        ("seconds milliseconds retry_after", r"-?\d+(\.\d+)?(e-?\d+)?"),
        ("timestamp until since", r"[0-9T:.Z+-]{1,40}"),
        ("serial fingerprint hash", r"[0-9A-Fa-f]{1,128}"),
    )
    for key in keys.split()
}
"""Keys that may stand in a log line, and what their value must look like as text."""

REFUSED = "(not logged)"


class AllowList:
    """A structlog processor: drops keys that are not allowed, and replaces values that do not fit their key.

    ``more`` allows further keys. What was dropped is counted under ``dropped``, never repeated. An exception is
    reduced to its type, its code if it has one, and the places it came through: its text may hold anything.
    """

    def __init__(self, more: Mapping[str, str] | None = None) -> None:
        self._allowed = dict(ALLOWED) | {key: re.compile(pattern) for key, pattern in (more or {}).items()}

    def __call__(self, _logger: Any, _method: str, event: Event) -> Event:
        """The event with nothing in it that could name anyone."""
        error = event.pop("exc_info", None)
        if error is True:
            error = sys.exc_info()[1]
        kept: Event = {}
        dropped = 0
        for key, value in event.items():
            pattern = self._allowed.get(key)
            if pattern is None:
                dropped += 1
                continue
            text = _text(value)
            if text is None or pattern.fullmatch(text) is None:
                kept[key] = REFUSED
            else:
                kept[key] = text if isinstance(value, UUID) else value
        if isinstance(error, BaseException):
            kept["error"] = str(getattr(error, "code", type(error).__name__))
            kept["place_in_code"] = _places(error)
        if dropped:
            kept["dropped"] = dropped
        return kept


def configure(more: Mapping[str, str] | None = None) -> None:
    """Set structlog up for a server process: JSON lines, UTC, the allow-list last before they are written."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            AllowList(more),
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        cache_logger_on_first_use=True,
    )


def _text(value: Any) -> str | None:
    """A value of a plain type as text; None for anything that could hide something inside."""
    if isinstance(value, bool | int | float | str | UUID):
        return str(value)
    return None


def _places(error: BaseException) -> str:
    places: list[str] = []
    trace = error.__traceback__
    while trace is not None and len(places) < 20:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " ".join(places)
