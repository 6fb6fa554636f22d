"""What is due for a card that a workstation sees: asked often, answered by one statement for many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.serialization import load_der_public_key

from cardwright_cardops.piv.algorithms import PublicKey
from cardwright_cardops.piv.proofs import PROOF_AUDIENCE, ProofInvalid, check_nonce, verify
from cardwright_cardops.piv.references import Slot

from ..authentication.authorize import Authorize, CallTarget
from ..authentication.matrix import Call
from ..authentication.principal import Principal, PrincipalKind
from ..devices.card_lock import LOCKABLE_STATES
from ..devices.due import MANDATORY_AFTER, DueItem, DueList, DueOfCard, DueOfCards, RowOfCard, What, due_of
from ..devices.errors import NoSuchDevice
from ..devices.model import DeviceState
from ..policies.model import DeviceKind
from ..requests.model import POSSIBLE, RequestKind, RequestState
from ..requests.service import RequestService
from ..store.gathering import Gathering
from ..store.unit import Database, Unit
from . import store
from .desk import Stations
from .model import Purpose

MANDATORY_BEFORE: Final = timedelta(days=7)
"""How long before its certificates end a renewal cannot be put off any more."""
_AT_ONCE: Final = frozenset((What.LOCK, What.UNLOCK))
"""Cannot be put off from the beginning. That a card is revoked is told, and nothing is done to it."""
_SECONDS: Final = {
    What.REVOKED: 5,
    What.LOCK: 5,
    What.UNLOCK: 5,
    What.REPLACEMENT: 90,
    What.ACTIVATION: 5,
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
    RequestKind.RECYCLE: Purpose.RECYCLE,
}
_OF: Final = {
    What.LOCK: Purpose.LOCK,
    What.UNLOCK: Purpose.UNLOCK,
    What.REPLACEMENT: Purpose.ISSUE,
    What.ACTIVATION: Purpose.ISSUE,
}
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
    suspended: bool = False


class DueChecks:
    """Answers. Made once for a process: checks that come at the same time share a statement."""

    def __init__(
        self, database: Database, authorize: Authorize, due: DueList, requests: RequestService, stations: Stations
    ) -> None:
        self._database = database
        self._authorize = authorize
        self._due = due
        self._requests = requests
        self._stations = stations
        self._cards = DueOfCards(lambda device, life: store.newest_key(device, life, Slot.CARD_AUTHENTICATION))
        self._gathered = Gathering(self._ask)

    async def check(self, principal: Principal, card: CardName, proof: bytes = b"") -> DueAnswer:
        """What is due. Raises AuthorizationError, StoreError, and NoSuchDevice for a card that is not ours, without
        more.
        """
        await self._may(principal, "SessionService.Due")
        found = await self._found(principal.org, card)
        if found is None:
            raise NoSuchDevice("this card is not known here")
        if found.kind is DeviceKind.VIRTUAL_CARD and found.state in POSSIBLE[RequestKind.RECYCLE]:
            found = await self._recycled(principal.org, found)
        if not self._stations.is_trusted(principal.workstation):
            found = _without(found, What.SECRETS)
        if found.state in LOCKABLE_STATES:
            # Out of use, it is locked or handed in; all else would be refused.
            found = _without(found, *(set(What) - {What.LOCK, What.REVOKED}))
        if card.guid is None:
            # What shows only its number is blank: there is nothing on it that was revoked.
            found = _without(found, What.REVOKED)
        due = bool(found.due.what)
        if card.guid is None and not due and found.state in _TO_BE_WRITTEN:
            due = await self._database.glance(lambda unit: self._ready(unit, principal.org, found.device))
        if card.guid is None or not proof or not _proves(found, card.guid, proof):
            return DueAnswer(due)
        things = tuple(map(_thing, _told_once(found.due.what)))
        suspended = found.state in LOCKABLE_STATES
        return DueAnswer(due, True, things, found.due.until, found.policy_number or 0, suspended)

    async def devices(self, principal: Principal, cards: Sequence[CardName]) -> dict[UUID, CardName]:
        """The devices of cards that are to be watched; those that are not ours are left out, and nothing is said.

        Raises AuthorizationError, StoreError.
        """
        await self._may(principal, "SessionService.Watch")
        found = await asyncio.gather(*(self._found(principal.org, card) for card in cards))
        return {one.device: card for one, card in zip(found, cards, strict=True) if one is not None}

    async def _may(self, principal: Principal, name: str) -> None:
        call, target = Call(name), CallTarget(principal.org, workstation=principal.id)
        # What workstations may is known without a statement, which would be the most of what a check costs.
        if principal.kind is PrincipalKind.WORKSTATION:
            await self._authorize(None, principal, call, target)
        else:
            await self._database.read(lambda unit: self._authorize(unit, principal, call, target))

    async def _found(self, org: UUID, card: CardName) -> DueOfCard | None:
        if card.guid is not None:
            rows = await self._gathered.get((org, card.guid))
            if rows is not None:
                return due_of(rows)
        if not card.serial:
            return None
        blank = await self._database.glance(lambda unit: self._due.of_blank(unit, org, card.serial))
        # A card whose issuance failed shows a card UUID that its device never got.
        failed = blank is not None and blank.state is DeviceState.FAILED
        return blank if card.guid is None or failed else None

    async def _ask(self, keys: Sequence[tuple[UUID, UUID]]) -> Mapping[tuple[UUID, UUID], Sequence[RowOfCard]]:
        """One statement for each organization, which is one."""
        by_org: dict[UUID, list[UUID]] = {}
        for org, guid in keys:
            by_org.setdefault(org, []).append(guid)

        async def work(unit: Unit) -> dict[tuple[UUID, UUID], Sequence[RowOfCard]]:
            return {
                (org, guid): rows
                for org, guids in by_org.items()
                for guid, rows in (await self._cards.ask(unit, org, guids)).items()
            }

        return await self._database.glance(work)

    async def _recycled(self, org: UUID, found: DueOfCard) -> DueOfCard:
        """What is due for a virtual card at its end that came again: to be erased, where nothing is against it."""

        async def work(unit: Unit) -> DueOfCard:
            asked = await self._requests.recycle_unasked(unit, org, found.device)
            return found if asked is None else replace(found, due=await self._due.due(unit, org, found.device))

        asked_for = any(one.what is What.REQUEST for one in found.due.what)
        return found if asked_for else await self._database.transact(work)

    async def _ready(self, unit: Unit, org: UUID, device: UUID) -> bool:
        """Whether a blank card's issuance may begin."""
        opened = await self._requests.open_of(unit, org, device, RequestKind.ISSUANCE)
        return any(one.state not in _NOT_READY for one in opened)


def _proves(found: DueOfCard, guid: UUID, proof: bytes) -> bool:
    """Whether the key in 9E that the card was issued with signed for this card and about this minute."""
    key = None if found.beside is None else load_der_public_key(found.beside)
    if not isinstance(key, PublicKey):
        return False
    for shift in _SKEW:
        try:
            verify(proof, audience=PROOF_AUDIENCE, nonce=check_nonce(guid, found.now + shift), key=key)
        except ProofInvalid:
            continue
        return True
    return False


def _without(found: DueOfCard, *left_out: What) -> DueOfCard:
    what = tuple([one for one in found.due.what if one.what not in left_out])
    return replace(found, due=replace(found.due, what=what))


def _told_once(what: Sequence[DueItem]) -> Sequence[DueItem]:
    """What is due. A locked card that was given back and the request to unlock it are one thing."""
    asked = next((one for one in what if one.detail.get("kind") == RequestKind.UNLOCK), None)
    if asked is None or all(one.what is not What.UNLOCK for one in what):
        return what
    given_back = (replace(one, detail=asked.detail) if one.what is What.UNLOCK else one for one in what)
    return [one for one in given_back if one is not asked]


def _thing(item: DueItem) -> DueThing:
    mandatory = item.since if item.what in _AT_ONCE else None
    if item.ends_at is not None:
        mandatory = max(item.since, item.ends_at - MANDATORY_BEFORE)
    elif isinstance(days := item.detail.get(MANDATORY_AFTER), int):
        mandatory = item.since + timedelta(days=days)
    asked = item.detail.get("request") if item.what in (What.REQUEST, What.UNLOCK) else None
    purpose = _PURPOSES[RequestKind(str(item.detail["kind"]))] if asked is not None else _OF.get(item.what)
    request = None if asked is None else UUID(str(asked))
    return DueThing(
        item.what, item.since, mandatory, item.ends_at, _SECONDS[item.what], purpose or Purpose.UPDATE, request
    )
