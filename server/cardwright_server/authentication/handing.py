"""What an ``EnrolmentService`` does in three steps: look whether it may be, hash outside of any transaction, keep."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from ..store.unit import Database
from .enrolment import EnrolmentService
from .principal import Principal


class HandingService:
    """Sets answers and hands passwords over. Opens its own units; nobody has anything hashed who may not set it."""

    def __init__(self, database: Database, enrolment: EnrolmentService) -> None:
        self._database = database
        self._enrolment = enrolment

    async def set_answers(self, principal: Principal, texts: Mapping[UUID, str]) -> None:
        """Replace the caller's answers. Raises as ``EnrolmentService.set_answers``."""
        person = principal.actor
        await self._database.read(lambda unit: self._enrolment.admit_answers(unit, principal, person, texts))
        prepared = await self._enrolment.prepare_answers(texts)
        await self._database.transact(lambda unit: self._enrolment.set_answers(unit, principal, person, prepared))

    async def initial_password(self, principal: Principal, person: UUID) -> tuple[str, datetime]:
        """A new initial password, to be shown once, and its end. Raises as ``set_initial_password``."""
        await self._database.read(lambda unit: self._enrolment.admit_initial(unit, principal, person))
        handed = await self._enrolment.prepare_password()
        ends = await self._database.transact(
            lambda unit: self._enrolment.set_initial_password(unit, principal, person, handed)
        )
        return handed.text, ends

    async def emergency_password(self, principal: Principal, person: UUID, request: UUID) -> tuple[str, datetime]:
        """A password for one open request to unlock, and its end. Raises as ``set_emergency_password``."""
        await self._database.read(lambda unit: self._enrolment.admit_emergency(unit, principal, person, request))
        handed = await self._enrolment.prepare_password()
        ends = await self._database.transact(
            lambda unit: self._enrolment.set_emergency_password(unit, principal, person, request, handed)
        )
        return handed.text, ends
