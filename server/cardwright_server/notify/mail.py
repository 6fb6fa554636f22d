"""Mail: the consumer that turns events into queued messages."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.errors import MessageError
from email.headerregistry import Address
from typing import Protocol
from uuid import UUID

from ..store.unit import Unit
from . import store
from .errors import AddressUnusable, TemplateInvalid
from .store import Recorded
from .templates import Template, replaced, shipped

_LONGEST_ADDRESS = 254


@dataclass(frozen=True, slots=True)
class Recipient:
    """Whom a mail goes to: address, name, and the organization's name."""

    address: str = field(repr=False)
    person: str = field(repr=False)
    organization: str = ""


class Directory(Protocol):
    """What mail needs to know of people."""

    async def recipients(self, unit: Unit, event: Recorded) -> Sequence[Recipient]:
        """Who is to hear of an event: its person, or those whose part it is. None: nobody."""


class MailConsumer:
    """Queues a mail for each recipient of an event that has a text. ``domain`` stands in message ids."""

    name = "mail"

    def __init__(self, directory: Directory, *, domain: str, portal: str) -> None:
        self._directory = directory
        self._domain = domain
        self._portal = portal
        self.names = frozenset(shipped())

    async def handle(self, unit: Unit, event: Recorded) -> None:
        """Queue the mails of one event. Raises TemplateInvalid if the event lacks what its text needs."""
        recipients = await self._directory.recipients(unit, event)
        if not recipients:
            return
        template, _ = await template_in_use(unit, event.org, event.name)
        for recipient in recipients:
            try:
                address = usable_address(recipient.address)
            except AddressUnusable:
                continue  # Nobody can be told; the directory's own check reports addresses like that.
            values = {name: "" if value is None else str(value) for name, value in event.data.items()}
            values |= {"person": recipient.person, "organization": recipient.organization, "portal": self._portal}
            values |= {"about": str(event.subject)}
            subject, body = template.filled(values)
            message = {
                "event": event.id,
                "template": event.name,
                "recipient": address,
                "subject": subject,
                "body": body,
                "message_id": message_id(event, address, self._domain),
            }
            await store.queue(unit, event.org, message)


async def template_in_use(unit: Unit, org: UUID, event: str) -> tuple[Template, bool]:
    """The text that mails of an event have in an organization, and whether it is its own. The event has one."""
    own = await store.own_template(unit, org, event)
    if own is not None:
        try:
            return replaced(event, own.subject, own.body), True
        except TemplateInvalid:
            pass  # Written for another version of the program: the shipped text says what is needed.
    return shipped()[event], False


async def keep_template(unit: Unit, org: UUID, event: str, subject: str, body: str) -> None:
    """Replace the text for an event in one organization. Raises TemplateInvalid. Authorization is the caller's part."""
    template = replaced(event, subject, body)
    await store.keep_template(unit, org, event, template.subject, template.body)


def usable_address(text: str) -> str:
    """An address as it may stand in a header and an envelope: one mailbox, ASCII. Raises AddressUnusable."""
    try:
        address = Address(addr_spec=text)
    except (MessageError, ValueError, IndexError) as error:
        raise AddressUnusable("this is no mail address") from error
    plain = text.isascii() and text.isprintable() and " " not in text and len(text) <= _LONGEST_ADDRESS
    if not plain or not address.username or "." not in address.domain or address.addr_spec != text:
        raise AddressUnusable("this is no mail address")
    return text


def message_id(event: Recorded, address: str, domain: str) -> str:
    """The Message-ID of an event's mail to an address: always the same, so that a repetition can be recognized."""
    return f"<{event.id.hex}.{hashlib.sha256(address.lower().encode()).hexdigest()[:16]}@{domain}>"
