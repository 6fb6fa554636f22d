"""``notify.mail.Directory`` by the people's service: who hears of an event is the person whom it is about."""

from __future__ import annotations

from collections.abc import Sequence

from ..notify.mail import Recipient
from ..notify.store import Recorded
from ..people.errors import NoSuchPerson
from ..people.service import PeopleService
from ..store.unit import Unit


class PersonsConcerned:
    """``organization`` is how mails call the installation's owner."""

    def __init__(self, people: PeopleService, organization: str) -> None:
        self._people = people
        self._organization = organization

    async def recipients(self, unit: Unit, event: Recorded) -> Sequence[Recipient]:
        """See ``Directory``; nobody where the person is unknown, erased, or has no address."""
        if event.person is None:
            return ()
        try:
            person = await self._people.person(unit, event.org, event.person)
        except NoSuchPerson:
            return ()
        if not person.mail:
            return ()
        return (Recipient(person.mail, person.display_name, self._organization),)
