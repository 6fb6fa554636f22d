"""Values: an event that a domain emits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

Datum = str | int | bool | None


@dataclass(frozen=True, slots=True)
class DomainEvent:
    """Something that other parts may want to know of, committed with the change itself.

    ``name`` is ``<domain>.<event>`` like an audit action: ``device.issued``. ``subject`` is what it is about;
    ``person`` whom it concerns (the device's owner), if anyone. ``data`` holds ids, codes and moments as text: what
    consumers cannot look up any more. No names, no addresses, no secrets. Raises ValueError for a malformed name.
    """

    org: UUID
    name: str
    subject_kind: str
    subject: UUID
    person: UUID | None = None
    data: Mapping[str, Datum] = field(default_factory=dict)
    correlation: UUID | None = None

    def __post_init__(self) -> None:
        domain, dot, event = self.name.partition(".")
        if not (domain and dot and event) or self.name != self.name.lower() or not self.name.isascii():
            raise ValueError(f"{self.name!r} is no event: <domain>.<event>")
