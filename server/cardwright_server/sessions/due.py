"""What is due for a card that a workstation sees: asked often, answered by two statements at most."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar
from uuid import UUID

from cryptography.hazmat.primitives.serialization import load_der_public_key

from cardwright_cardops.piv.algorithms import PublicKey
from cardwright_cardops.piv.proofs import PROOF_AUDIENCE, ProofInvalid, check_nonce, verify
from cardwright_cardops.piv.references import Slot

from ..authentication.authorize import Authorize, CallTarget
from ..authentication.matrix import Call
from ..authentication.principal import Principal, PrincipalKind
from ..devices.due import DueItem, DueList, DueOfCard, What
from ..devices.errors import NoSuchDevice
from ..devices.model import DeviceState
from ..requests.model import RequestKind, RequestState
from ..requests.service import RequestService
from ..store.unit import Database, Unit
from . import store
from .model import Purpose

T = TypeVar("T")

MANDATORY_BEFORE: Final = timedelta(days=7)
"""How long before its certificates end a renewal cannot be put off any more."""
_AT_ONCE: Final = frozenset((What.REVOKED, What.LOCK, What.UNLOCK))
_SECONDS: Final = {
    What.REVOKED: 5,
    What.LOCK: 5,
    What.UNLOCK: 5,
    What.REPLACEMENT: 90,
    What.RECOVERED_KEYS: 20,
    What.POLICY: 90,
    What.RENEWAL: 40,
    What.SECRETS: 5,
    What.REQUEST: 90,
}
"""Rounded up from the estimates of plans with RSA keys on a slow card."""
_PURPOSES: Final = {
    RequestKind.UPDATE: Purpose.UPDATE,
    RequestKind.RECOVERY: Purpose.UPDATE,
    RequestKind.REISSUE: Purpose.REISSUE,
    RequestKind.UNLOCK: Purpose.UNLOCK_ASSISTED,
}
_OF: Final = {What.UNLOCK: Purpose.UNLOCK, What.REPLACEMENT: Purpose.ISSUE}
_TO_BE_WRITTEN: Final = frozenset((DeviceState.ASSIGNED, DeviceState.IN_PRODUCTION, DeviceState.FAILED))
_NOT_READY: Final = frozenset((RequestState.PENDING, RequestState.APPROVED))
_SKEW: Final = (timedelta(0), timedelta(minutes=-1), timedelta(minutes=1))


@dataclass(frozen=True, slots=True)
class CardName:
    """A card by what it shows."""

    guid: UUID | None = None
    serial: str = ""


@dataclass(frozen=True, slots=True)
class DueThing:
    """One thing that is due; ``seconds`` is about how long it takes. ``purpose`` of the session that does it.

    ``request`` is the one that asked for it, if it was asked for.
    """

    what: What
    since: datetime
    mandatory_from: datetime | None
    ends_at: datetime | None
    seconds: int
    purpose: Purpose
    request: UUID | None = None


@dataclass(frozen=True, slots=True)
class DueAnswer:
    """What a workstation is told. A card that did not prove itself gets no more than ``due`` (S13)."""

    due: bool
    proven: bool = False
    things: tuple[DueThing, ...] = ()
    until: datetime | None = None
    policy_number: int = 0


class DueChecks:
    """Answers. Stateless."""

    def __init__(self, database: Database, authorize: Authorize, due: DueList, requests: RequestService) -> None:
        self._database = database
        self._authorize = authorize
        self._due = due
        self._requests = requests

    async def check(self, principal: Principal, card: CardName, proof: bytes = b"") -> DueAnswer:
        """What is due. Raises AuthorizationError, StoreError, and NoSuchDevice for a card that is not ours, without
        more.
        """

        async def work(unit: Unit) -> DueAnswer:
            await self._may(unit, principal, "SessionService.Due")
            return await self._answer(unit, principal.org, card, proof)

        return await self._read(principal, work)

    async def devices(self, principal: Principal, cards: Sequence[CardName]) -> dict[UUID, CardName]:
        """The devices of cards that are to be watched; those that are not ours are left out, and nothing is said.

        Raises AuthorizationError, StoreError.
        """

        async def work(unit: Unit) -> dict[UUID, CardName]:
            await self._may(unit, principal, "SessionService.Watch")
            found = [(await self._found(unit, principal.org, card), card) for card in cards]
            return {one.device: card for one, card in found if one is not None}

        return await self._read(principal, work)

    async def _read(self, principal: Principal, work: Callable[[Unit], Awaitable[T]]) -> T:
        # What workstations may is known without asking for the time, which would be a statement of its own.
        if principal.kind is PrincipalKind.WORKSTATION:
            return await self._database.glance(work)
        return await self._database.read(work)

    async def _may(self, unit: Unit, principal: Principal, name: str) -> None:
        await self._authorize(unit, principal, Call(name), CallTarget(principal.org, workstation=principal.id))

    async def _answer(self, unit: Unit, org: UUID, card: CardName, proof: bytes) -> DueAnswer:
        found = await self._found(unit, org, card)
        if found is None:
            raise NoSuchDevice("this card is not known here")
        due = bool(found.due.what)
        if card.guid is None and not due and found.state in _TO_BE_WRITTEN:
            opened = await self._requests.open_of(unit, org, found.device, RequestKind.ISSUANCE)
            due = any(one.state not in _NOT_READY for one in opened)
        if card.guid is None or not proof or not await self._proves(unit, org, found, card.guid, proof):
            return DueAnswer(due)
        things = tuple(map(_thing, found.due.what))
        return DueAnswer(due, True, things, found.due.until, found.policy_number or 0)

    async def _found(self, unit: Unit, org: UUID, card: CardName) -> DueOfCard | None:
        if card.guid is not None:
            return await self._due.of_card(unit, org, card.guid)
        return await self._due.of_blank(unit, org, card.serial) if card.serial else None

    async def _proves(self, unit: Unit, org: UUID, found: DueOfCard, guid: UUID, proof: bytes) -> bool:
        """Whether the key in 9E that the card was issued with signed for this card and about this minute."""
        row = await store.newest_key(unit, org, found.device, found.life, Slot.CARD_AUTHENTICATION)
        key = None if row is None else load_der_public_key(row[0])
        if row is None or not isinstance(key, PublicKey):
            return False
        for shift in _SKEW:
            try:
                verify(proof, audience=PROOF_AUDIENCE, nonce=check_nonce(guid, row[1] + shift), key=key)
            except ProofInvalid:
                continue
            return True
        return False


def _thing(item: DueItem) -> DueThing:
    mandatory = item.since if item.what in _AT_ONCE else None
    if item.ends_at is not None:
        mandatory = max(item.since, item.ends_at - MANDATORY_BEFORE)
    asked = item.detail.get("request") if item.what is What.REQUEST else None
    purpose = _PURPOSES[RequestKind(str(item.detail["kind"]))] if asked is not None else _OF.get(item.what)
    request = None if asked is None else UUID(str(asked))
    return DueThing(
        item.what, item.since, mandatory, item.ends_at, _SECONDS[item.what], purpose or Purpose.UPDATE, request
    )
