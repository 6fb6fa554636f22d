"""Numbers that no two cards ever share: FASC-N and UUIDs. Given once, never again, also after recycling."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid4

from cardwright_cardops.piv.objects.fascn import Fascn

from ..store.counters import take
from ..store.unit import Unit
from . import store
from .errors import NumbersExhausted
from .journal import number_event

NINES = Fascn("9999", "9999", "999999")
"""The FASC-N of issuers outside the federal government: all cards have it, and the card UUID tells them apart."""
_CREDENTIALS = 999_999
_SERIES = 10


class NumberKind(StrEnum):
    """Kinds of numbers."""

    FASCN = "fasc-n"
    CARD_UUID = "card-uuid"


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer's part of FASC-N (TIG SCEPACS section 2.1), as decimal digits; agency code 9999 is none of them."""

    agency_code: str = "9999"
    system_code: str = "9999"
    organizational_category: str = "1"
    organizational_identifier: str = "0000"
    person_association: str = "1"

    @property
    def federal(self) -> bool:
        """Whether FASC-Ns of this issuer tell cards apart."""
        return self.agency_code != "9999"


class Numbering:
    """Gives numbers. Stateless; the database remembers every one that was ever given."""

    def __init__(self, issuer: Issuer = Issuer()) -> None:
        """Raises MalformedFascn for codes that are not digits of the right number."""
        self._issuer = issuer
        self._fascn(0, "0000000000")

    async def fascn(self, unit: Unit, org: UUID, device: UUID, person_identifier: str = "0000000000") -> Fascn:
        """A FASC-N that no card had; all nines for issuers that have no agency code. Raises NumbersExhausted."""
        if not self._issuer.federal:
            return NINES
        counter = f"fasc-n/{self._issuer.agency_code}/{self._issuer.system_code}"
        while True:
            number = await take(unit, counter)
            if number > _CREDENTIALS * _SERIES:
                raise NumbersExhausted("all credential numbers of this agency and system code are given out")
            made = self._fascn(number - 1, person_identifier)
            # The counter gives each once; a row that is there already came from an import or a restored card.
            value = made.identifier + made.credential_series
            if await store.take_number(unit, org, device, NumberKind.FASCN, value):
                unit.beforehand(number_event(org, device, NumberKind.FASCN, value))
                return made

    async def card_uuid(self, unit: Unit, org: UUID, device: UUID, *, since: datetime | None = None) -> UUID:
        """A random UUID (RFC 9562 version 4) that no card had.

        ``since``: the one that this device was given after that moment, if it was: what is shown to a person for the
        same request stays the same until it is on the card.
        """
        given = None if since is None else await store.newest_number(unit, org, device, NumberKind.CARD_UUID, since)
        if given is not None:
            return UUID(given)
        while True:
            made = uuid4()
            if await store.take_number(unit, org, device, NumberKind.CARD_UUID, str(made)):
                return made

    async def reserve(self, unit: Unit, org: UUID, device: UUID, kind: NumberKind, value: str) -> bool:
        """Take a number that came from elsewhere (import, restored cards); False if it is somebody's already."""
        return await store.take_number(unit, org, device, kind, value)

    def _fascn(self, place: int, person_identifier: str) -> Fascn:
        series, credential = divmod(place, _CREDENTIALS)
        issuer = self._issuer
        return Fascn(
            agency_code=issuer.agency_code,
            system_code=issuer.system_code,
            credential_number=f"{credential + 1:06d}",
            credential_series=str(series),
            person_identifier=person_identifier,
            organizational_category=issuer.organizational_category,
            organizational_identifier=issuer.organizational_identifier,
            person_association=issuer.person_association,
        )
