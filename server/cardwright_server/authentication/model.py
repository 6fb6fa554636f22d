"""Values of authentication: methods, what they are worth, and the proof that one of them gave."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from uuid import UUID


class Method(StrEnum):
    """How someone proved who they are. A second factor will be one more line here and one more verifier."""

    LDAP_PASSWORD = "ldap-password"
    INITIAL_PASSWORD = "initial-password"
    SECURITY_ANSWERS = "security-answers"
    EMERGENCY_PASSWORD = "emergency-password"
    CARD = "card"
    """A key of an issued card, which asked for the PIN."""
    CLIENT_KEY = "client-key"
    """A registered key in software, at the TLS connection: operators and services."""


class Assurance(IntEnum):
    """What a proof is worth; the strongest method counts."""

    HANDED_OVER = 1
    """Something another person said or chose, or that others may find out."""
    PASSWORD = 2
    SOFTWARE_KEY = 3
    HARDWARE_KEY = 4


ASSURANCE = {
    Method.INITIAL_PASSWORD: Assurance.HANDED_OVER,
    Method.EMERGENCY_PASSWORD: Assurance.HANDED_OVER,
    Method.SECURITY_ANSWERS: Assurance.HANDED_OVER,
    Method.LDAP_PASSWORD: Assurance.PASSWORD,
    Method.CLIENT_KEY: Assurance.SOFTWARE_KEY,
    Method.CARD: Assurance.HARDWARE_KEY,
}


@dataclass(frozen=True, slots=True)
class Authentication:
    """A proof that succeeded. Kept in the database; worthless from ``expires_at`` (database time) on.

    ``subject`` is the person, or the account of a service. ``network`` is the address it came from, ``device`` the
    card that proved it. ``request`` is the one request that an emergency password was given out for: the proof is good
    for nothing else.
    """

    id: UUID
    org: UUID
    subject: UUID
    methods: frozenset[Method]
    time: datetime
    expires_at: datetime
    network: str = field(default="", repr=False)
    device: UUID | None = None
    request: UUID | None = None

    @property
    def assurance(self) -> Assurance:
        """The strongest method's worth."""
        return max(ASSURANCE[method] for method in self.methods)
