"""A person is erased from every domain that keeps something to know them by, in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from ..authentication.principal import Principal
from ..store.unit import Unit
from .service import PeopleService


class Keeper(Protocol):
    """A domain that keeps something of persons."""

    async def forget(self, unit: Unit, principal: Principal, person: UUID) -> None:
        """Remove it; the caller has authorized that."""


class ErasureService:
    """``PeopleService.erase`` for the whole server."""

    def __init__(self, people: PeopleService, keepers: Sequence[Keeper]) -> None:
        self._people = people
        self._keepers = tuple(keepers)

    async def erase(self, unit: Unit, principal: Principal, identifier: UUID) -> None:
        """Erase a person who left. Raises AuthorizationError, NoSuchPerson, NotErasable."""
        await self._people.erase(unit, principal, identifier)
        for keeper in self._keepers:
            await keeper.forget(unit, principal, identifier)
