"""What certificates and objects may say of a card and of the person whose it is."""

from __future__ import annotations

from collections.abc import Sequence

from ..issuance.names import HolderNames
from ..people.mapping import CertificateMapping, attributes_of, certificate_fields
from ..people.service import PeopleService
from ..store.unit import Database
from .ports import Task


class DeviceNames:
    """``Names`` by the people's service and the installation's mapping of attributes."""

    def __init__(self, database: Database, people: PeopleService, mapping: CertificateMapping) -> None:
        self._database = database
        self._people = people
        self._mapping = mapping

    async def names(self, task: Task) -> HolderNames:
        """See ``Names``. Raises NoSuchPerson, FieldMissing, StoreError."""
        if task.person is None:
            return HolderNames(card_uuid=task.guid, fascn=task.fascn)
        holder = task.person
        person = await self._database.glance(lambda unit: self._people.person(unit, task.org, holder))
        said = certificate_fields(self._mapping, person)
        return HolderNames(
            common_name=said.common_name,
            given_name=said.given_name,
            surname=said.surname,
            serial_number=said.serial_number,
            user_id=said.user_id,
            organizational_units=said.organizational_units,
            email=said.email,
            upn=said.upn,
            sid=said.sid,
            fascn=task.fascn,
            card_uuid=task.guid,
            holder_uuid=person.id,
        )

    def made_of(self, kinds: Sequence[str]) -> tuple[str, ...]:
        """See ``Names``."""
        fields = (kind.replace("-", "_") for kind in kinds)
        return tuple([name for field in fields for name in attributes_of(self._mapping, field)])
