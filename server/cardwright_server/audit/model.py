"""Values of the audit: who did what to what, and with what outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

Fact = str | int | bool | None
"""What an entry may say: small, plain, and the same text on every engine."""


class Outcome(StrEnum):
    """How it ended."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Who:
    """Who acted: kind (person, operator, workstation, service, system), how proven, through which front.

    ``address`` (of the network) is personal detail: it is kept beside the chain, and can be erased.
    """

    kind: str
    id: UUID | None = None
    person: UUID | None = None
    methods: tuple[str, ...] = ()
    front: str = ""
    address: str = field(default="", repr=False)


SERVER = Who("system")
"""The server itself: timers, sealers, consumers."""


@dataclass(frozen=True, slots=True)
class Target:
    """What it was done to: a kind of row (``device``, ``request``, ``person``, ...) and its id."""

    kind: str
    id: UUID | None = None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that happened. ``action`` is ``<domain>.<event>`` in lower case with hyphens: ``device.bind``.

    ``facts`` stand in the chain for ever: states before and after, ids, hashes, serial numbers, reasons by code;
    never a name, an address, a secret or free text. ``personal`` is for those that people need later (names,
    free-text reasons): it stands beside the chain, which holds only a commitment to it. Raises ValueError for a
    malformed action.
    """

    org: UUID
    who: Who
    action: str
    target: Target
    outcome: Outcome = Outcome.DONE
    facts: Mapping[str, Fact] = field(default_factory=dict)
    personal: Mapping[str, str] = field(default_factory=dict, repr=False)
    about: UUID | None = None
    """The person whom ``personal`` is about, if not the target itself: whose erasure takes it along."""
    correlation: UUID | None = None
    session: UUID | None = None

    def __post_init__(self) -> None:
        domain, dot, event = self.action.partition(".")
        if not (domain and dot and event) or self.action != self.action.lower() or not self.action.isascii():
            raise ValueError(f"{self.action!r} is no action: <domain>.<event>")
