"""``devices.puk_desk.Contacts`` by card sessions."""

from __future__ import annotations

from uuid import UUID

from cardwright_cardops.plan.records import Kind

from ..devices.puk_desk import Contact
from ..sessions import store
from ..store.unit import Unit
from .stations import KnownStations


class SessionContacts:
    """Sessions that go on now."""

    def __init__(self, stations: KnownStations) -> None:
        self._stations = stations

    async def contact(self, unit: Unit, org: UUID, device: UUID, session: UUID) -> Contact | None:
        """See ``Contacts``. What a card proved in a session is known to the process that runs it, and not recorded: a
        PUK is not told to operators on the word of another."""
        found = next((one for one in await store.live(unit, org, device) if one.id == session), None)
        if found is None:
            return None
        entries = (await store.records(unit, org, device, found.life)).entries
        names = [row.reference for row in entries if row.kind is Kind.PUK and "." in row.reference]
        puk = None
        if names:
            generation, _, master = names[-1].partition(".")
            puk = int(generation), int(master)
        return Contact(found.workstation, False, self._stations.is_trusted(found.workstation), puk)
