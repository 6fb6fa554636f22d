"""``notify.mail.Directory`` by the people's service: who hears of an event is the person whom it is about, or the help
desk where something went wrong that only it can put right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..devices.model import DeviceState
from ..notify.mail import Recipient
from ..notify.store import Recorded
from ..people.errors import NoSuchPerson
from ..people.model import Person
from ..people.service import PeopleService
from ..store.unit import Unit

UPDATE_FAILED: Final = "device.fail-update"


class PersonsConcerned:
    """``organization`` is how mails call the installation's owner."""

    def __init__(self, people: PeopleService, organization: str) -> None:
        self._people = people
        self._organization = organization

    async def recipients(self, unit: Unit, event: Recorded) -> Sequence[Recipient]:
        """See ``Directory``; nobody where the person is unknown, erased, or has no address."""
        if event.person is None:
            return ()
        if event.name == UPDATE_FAILED:
            if event.data["after"] != DeviceState.INVALID:
                return ()
            helpers = await self._people.desk_of(unit, event.org, event.person)
            return [self._recipient(one) for one in helpers if one.mail]
        try:
            person = await self._people.person(unit, event.org, event.person)
        except NoSuchPerson:
            return ()
        if not person.mail:
            return ()
        return (self._recipient(person),)

    def _recipient(self, person: Person) -> Recipient:
        return Recipient(person.mail, person.display_name, self._organization)
