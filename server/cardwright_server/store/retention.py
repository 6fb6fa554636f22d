"""How long rows are kept: a class for every table, and the rule by which the purge finds what is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum


class Retention(StrEnum):
    """Why rows are kept, which decides for how long. Periods are the defaults; an installation may choose others."""

    PERMANENT = "permanent"
    """Evidence and uniqueness: certificates, numbers given out, the chain of the audit. No personal detail."""
    ACCOUNT = "account"
    """Belongs to a person or device and goes when that is erased, by the service that owns it."""
    HISTORY = "history"
    """What was asked and done: requests, sessions."""
    PERSONAL_DETAIL = "personal-detail"
    """Names, addresses and the like beside the audit's chain."""
    MESSAGES = "messages"
    """Mail with its text, once it was sent or given up."""
    EVENTS = "events"
    """Events between domains, once every consumer has read them."""
    TRANSIENT = "transient"
    """Tokens, challenges, idempotency keys, leases: worthless after their hour."""


PERIODS: Mapping[Retention, timedelta | None] = {
    Retention.PERMANENT: None,
    Retention.ACCOUNT: None,
    Retention.HISTORY: timedelta(days=7 * 365),
    Retention.PERSONAL_DETAIL: timedelta(days=2 * 365),
    Retention.MESSAGES: timedelta(days=30),
    Retention.EVENTS: timedelta(days=90),
    Retention.TRANSIENT: timedelta(days=7),
}
"""How long each class is kept; None: the purge never touches it."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Retention of one table: its class, and the column whose time, plus the class's period, ends a row.

    A row whose column is NULL stays: point ``counts_from`` at the column that is set when the row is done with
    (closed, sent, expired), so that nothing that is still open is ever purged.
    """

    retention: Retention
    counts_from: str | None = None
