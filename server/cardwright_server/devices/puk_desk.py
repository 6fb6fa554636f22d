"""A PUK for the help desk: authorized, checked and recorded in one unit; only after its commit the vault is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from cardwright_cardops.secret import Secret

from ..authentication.authorize import Authorize, sought
from ..authentication.matrix import Call
from ..authentication.principal import Principal
from ..requests.errors import NoSuchRequest
from ..requests.service import RequestService
from ..store.unit import Unit
from ..vault.model import Authorization, PukPurpose, VaultCard
from ..vault.protocol import Vault
from .errors import PukRefused
from .puk import PukOccasion, PukRelease


@dataclass(frozen=True, slots=True)
class Contact:
    """A card session that goes on now, as far as the release of a PUK depends on it.

    ``card_proved`` and ``trusted`` as in ``PukOccasion``. ``puk``: generation and version of the master key of the PUK
    that the card was last known to have; None for one that the vault does not know.
    """

    workstation: UUID | None
    card_proved: bool
    trusted: bool
    puk: tuple[int, int] | None


class Contacts(Protocol):
    """What is asked of card sessions."""

    async def contact(self, unit: Unit, org: UUID, device: UUID, session: UUID) -> Contact | None:
        """The session, or None if it has ended or is on another device."""


@dataclass(frozen=True, slots=True)
class ReleasedPuk:
    """A release that is on record: what the vault is asked for, and on whose behalf."""

    card: VaultCard
    authorization: Authorization


class PukDesk:
    """Releases PUKs to operators. Stateless."""

    def __init__(
        self, authorize: Authorize, requests: RequestService, release: PukRelease, contacts: Contacts, vault: Vault
    ) -> None:
        self._authorize = authorize
        self._requests = requests
        self._release = release
        self._contacts = contacts
        self._vault = vault

    async def record(self, unit: Unit, principal: Principal, device: UUID, request: UUID) -> ReleasedPuk:
        """Decide on a release, write it down, and tell the holder. ``request`` is being carried out on ``device``.

        Raises AuthorizationError, NoSuchRequest, NoSuchDevice, PukRefused.
        """
        call, finding = Call("DeviceService.ReleasePuk"), self._requests.request(unit, principal.org, request)
        found = await sought(self._authorize, unit, principal, call, finding, NoSuchRequest)
        await self._authorize(unit, principal, call, found.target)
        if found.worked_on != device:
            raise NoSuchRequest("there is no such request about this device")
        contact = None
        if found.session is not None:
            contact = await self._contacts.contact(unit, principal.org, device, found.session)
        if contact is None or found.session is None:
            raise PukRefused(["no card session carries this request out now"], ["NO_REQUEST"])
        occasion = PukOccasion(
            request,
            found.session,
            contact.workstation,
            card_proved=contact.card_proved,
            trusted=contact.trusted,
        )
        await self._release.record(unit, principal, device, occasion)
        if contact.puk is None:
            raise PukRefused(["the vault does not know the card's PUK"], ["PUK_UNKNOWN"])
        generation, master = contact.puk
        return ReleasedPuk(
            VaultCard(str(principal.org), str(device), generation, master),
            Authorization(str(principal.actor), str(request), str(found.session)),
        )

    async def give(self, released: ReleasedPuk) -> Secret:
        """The PUK of a release whose record is committed. Raises VaultQuota and the other errors of the vault."""
        return await self._vault.puk(released.card, PukPurpose.UNLOCK, released.authorization)
