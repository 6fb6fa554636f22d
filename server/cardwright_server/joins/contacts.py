"""``devices.puk_desk.Contacts`` by card sessions."""

from __future__ import annotations

from uuid import UUID

from cardwright_cardops.plan.records import Kind

from ..devices.puk_desk import Contact
from ..sessions import store
from ..store.unit import Unit
from .stations import KnownStations


class SessionContacts:
    """Sessions that go on now.

    That the card proved itself is seen by the journal: a session to unlock lets the card prove itself before anything
    else (``sessions.course``), and records the PUK that it is about to set only after that. The PUK that the card has
    is the last one that a card confirmed.
    """

    def __init__(self, stations: KnownStations) -> None:
        self._stations = stations

    async def contact(self, unit: Unit, org: UUID, device: UUID, session: UUID) -> Contact | None:
        """See ``Contacts``."""
        found = next((one for one in await store.live(unit, org, device) if one.id == session), None)
        if found is None:
            return None
        proved = found.purpose.unlocks and await store.noted_puk(unit, org, session)
        entries = (await store.records(unit, org, device, found.life)).entries
        names = [row.reference for row in entries if row.kind is Kind.PUK_SET]
        return Contact(found.workstation, proved, self._stations.is_trusted(found.workstation), _generation(names))


def _generation(names: list[str]) -> tuple[int, int] | None:
    """Generation and master of the last name, if it is one of the vault's."""
    generation, dot, master = (names[-1] if names else "").partition(".")
    return (int(generation), int(master)) if dot else None
