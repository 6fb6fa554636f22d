"""``Certificates`` of card sessions with an archive beside them: what is issued for its keys is bound to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from uuid import UUID

from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.authority import Issued, Pending, Refused
from cardwright_cardops.plan.inventory import fingerprint
from cardwright_cardops.plan.planner import RECOVERED

from ..authentication.principal import Principal
from ..sessions.ports import Also, CertificateOrder, Certificates, Task
from ..store.unit import Unit
from .archive import EscrowArchive
from .errors import NoSuchEscrowedKey


class ArchivedCertificates:
    """Wraps the ``Certificates`` that issue. Orders for recovered keys are answered from the archive."""

    def __init__(self, issuing: Certificates, archive: EscrowArchive) -> None:
        self._issuing = issuing
        self._archive = archive

    async def subject(self, task: Task, slot: Slot, profile: str) -> bytes:
        """See ``Certificates``."""
        return await self._issuing.subject(task, slot, profile)

    async def require_names(self, task: Task, profiles: Set[str]) -> None:
        """See ``Certificates``."""
        await self._issuing.require_names(task, profiles - {RECOVERED})

    async def certify(
        self, orders: Sequence[CertificateOrder], also: Also | None = None
    ) -> tuple[Issued | Pending | Refused, ...]:
        """See ``Certificates``. Also raises VaultError and StoreError of the archive."""
        wanted = [order for order in orders if order.profile != RECOVERED]
        issued = iter(await self._issuing.certify(wanted, also) if wanted else ())
        replies: list[Issued | Pending | Refused] = []
        for order in orders:
            if order.profile == RECOVERED:
                replies.append(await self._recovered(order))
                continue
            reply = next(issued)
            # Keys of the card come with their own request; without one it may be a key of the archive.
            if isinstance(reply, Issued) and not order.request:
                await self._bind(order, reply.content, also)
            replies.append(reply)
        return tuple(replies)

    async def revoked(self, unit: Unit, task: Task) -> frozenset[str]:
        """See ``Certificates``."""
        return await self._issuing.revoked(unit, task)

    async def settle(
        self, unit: Unit, principal: Principal, task: Task, session: UUID, keys: Mapping[Slot, str], bare: Set[str]
    ) -> None:
        """See ``Certificates``."""
        await self._issuing.settle(unit, principal, task, session, keys, bare)

    async def _bind(self, order: CertificateOrder, certificate: bytes, also: Also | None) -> None:
        try:
            await self._archive.bind_certificate(order.task.org, fingerprint(order.public_key), certificate, also)
        except NoSuchEscrowedKey:
            return  # a key of the card, whose order is repeated

    async def _recovered(self, order: CertificateOrder) -> Issued | Refused:
        try:
            found = await self._archive.archived(order.task.org, fingerprint(order.public_key))
        except NoSuchEscrowedKey as error:
            return Refused(error.message)
        if not found.certificate or found.person != order.task.person:
            return Refused("The archive has no certificate for this key that goes to this card.")
        return Issued(found.certificate)
