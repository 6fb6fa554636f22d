"""What calls ask of the escrow: listings, approved recoveries, and files for a key's owner."""

from __future__ import annotations

import hmac
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from cardwright_cardops.secret import Secret

from ..audit.model import AuditEntry, Fact, Outcome, Target
from ..authentication.authorize import Authorize, CallTarget, Permission, sought
from ..authentication.errors import ProofRequired
from ..authentication.matrix import Call
from ..authentication.methods import new_password
from ..authentication.model import Authentication, Method
from ..authentication.principal import Principal
from ..devices.due import What
from ..machine import Actor
from ..requests.errors import NoSuchRequest
from ..requests.model import Request, RequestKind
from ..store.unit import Database, Unit
from ..vault.model import Authorization, CommitPurpose
from ..vault.protocol import Vault
from . import store
from .errors import (
    EscrowQuota,
    FileNotAllowed,
    NoSuchEscrowedKey,
    NotCertified,
    OfferClaimed,
    OfferExpired,
    OfferRefused,
    RecoveryNotAllowed,
    RecoveryNotPossible,
)
from .journal import offer_event
from .model import (
    CARRIED_OUT,
    DAY,
    FRESH,
    MOST_ATTEMPTS,
    OFFER,
    OFFER_LIFETIME,
    RECOVERY,
    RECOVERY_LIFETIME,
    Archived,
    OfferEvent,
    OfferState,
    PfxOffer,
    Quotas,
    RecoveryEvent,
    Requests,
    Way,
)
from .record import Leaving, leave, tell

MOST_RESULTS = 200
"""On a page; one more may be read, to see whether anything follows."""
_GROUPS = 7
"""Groups of four characters in a password: 140 bits."""


class People(Protocol):
    """What the escrow asks about people (``PeopleService`` is one)."""

    def covered(self, permission: Permission) -> Any:
        """A subquery of the ids of persons whom a permission covers."""


class Rules(Protocol):
    """What policies say of archived keys (``joins.escrowing.CardPolicies`` is one)."""

    async def allows_files(self, unit: Unit, org: UUID, device: UUID) -> bool:
        """Whether keys of a device may leave as files, by its policy that is in force."""

    async def allows_recovery(self, unit: Unit, org: UUID, device: UUID) -> bool:
        """Whether a device may get its holder's old keys."""


class Due(Protocol):
    """Where it is noted that a card has something to fetch (``DueList`` is one)."""

    async def put(self, unit: Unit, org: UUID, identifier: UUID, what: What, due_at: datetime) -> None:
        """Say when something becomes due."""


@dataclass(frozen=True, slots=True)
class Approved:
    """Keys that may go to a device, and until when."""

    device: UUID
    keys: tuple[UUID, ...]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Offered:
    """An offer of a file. ``password`` opens the file; it is given this once and kept nowhere."""

    offer: UUID
    password: Secret
    expires_at: datetime


class EscrowService:
    """Calls of operators and owners. Stateless."""

    def __init__(
        self,
        database: Database,
        authorize: Authorize,
        people: People,
        requests: Requests,
        due: Due,
        vault: Vault,
        rules: Rules,
        quotas: Quotas | None = None,
    ) -> None:
        self._database = database
        self._authorize = authorize
        self._people = people
        self._requests = requests
        self._due = due
        self._vault = vault
        self._rules = rules
        self._quotas = quotas or Quotas()

    async def find(
        self,
        unit: Unit,
        principal: Principal,
        *,
        person: UUID | None = None,
        after: UUID | None = None,
        limit: int = 50,
    ) -> list[Archived]:
        """Keys of persons whom the caller's grants cover, or the caller's own, from beyond ``after``.

        In the order of their ids. ``person``: only theirs. Raises AuthorizationError.
        """
        target = CallTarget(principal.org, person)
        permission = await self._authorize(unit, principal, Call("EscrowService.Find"), target)
        conditions: list[Any] = []
        if permission.own is not None:
            conditions.append(store.person_is(permission.own))
        elif not permission.everywhere:
            conditions.append(store.person_in(self._people.covered(permission)))
        if person is not None:
            conditions.append(store.person_is(person))
        return await store.find(unit, principal.org, *conditions, after=after, limit=min(limit, MOST_RESULTS + 1))

    # ---------------------------------------------------------------------------------------------- to a card

    async def recover(self, unit: Unit, principal: Principal, request: UUID, keys: Collection[UUID] = ()) -> Approved:
        """Approve that keys of a device's holder go to that device under a request; all of them if none is named.

        Nobody does so under their own request, or for their own device. The owner is told now, and again when the keys
        leave. The same again changes nothing. Raises AuthorizationError, NoSuchRequest, RecoveryNotPossible,
        RecoveryNotAllowed, NoSuchEscrowedKey, EscrowQuota.
        """
        call, finding = Call("EscrowService.Recover"), self._requests.request(unit, principal.org, request)
        asked = await sought(self._authorize, unit, principal, call, finding, NoSuchRequest)
        await self._authorize(unit, principal, call, asked.target)
        if asked.kind is not RequestKind.RECOVERY or asked.state not in CARRIED_OUT or asked.person is None:
            raise RecoveryNotPossible("This is no approved request for the recovery of somebody's keys.")
        if not await self._rules.allows_recovery(unit, principal.org, asked.device):
            raise RecoveryNotAllowed("The policy gives no old keys to a temporary card.")
        ends = asked.expires_at or unit.now + RECOVERY_LIFETIME
        if ends <= unit.now:
            raise RecoveryNotPossible("The time of this request is over.")
        held = {key.id: key for key in await store.certified_of(unit, principal.org, asked.person)}
        wanted = sorted(set(keys) or held)
        if not wanted or not held.keys() >= set(wanted):
            raise NoSuchEscrowedKey("There is no such key of this person in the archive.")
        before = {one.key for one in await store.recoveries_of(unit, principal.org, request)}
        new = [held[key] for key in wanted if key not in before]
        await self._within_quota(unit, principal, asked.person, len(new))
        for key in new:
            await self._approve(unit, principal, asked, key, ends)
        if new:
            tell(unit, new[0], "approved to go to a card of yours")
            await self._due.put(unit, principal.org, asked.device, What.RECOVERED_KEYS, unit.now)
        return Approved(asked.device, tuple(wanted), ends)

    async def _within_quota(self, unit: Unit, principal: Principal, person: UUID, more: int) -> None:
        since = unit.now - DAY
        by, of = await store.count_recoveries(unit, principal.org, since, principal.actor, person)
        if more and by + more > self._quotas.keys_by_operator:
            raise EscrowQuota("You approved as many recoveries as one operator may in a day.", DAY.total_seconds())
        if more and of + more > self._quotas.keys_of_person:
            raise EscrowQuota("As many keys of this person were recovered as may be in a day.", DAY.total_seconds())

    async def _approve(self, unit: Unit, principal: Principal, request: Request, key: Archived, ends: datetime) -> None:
        row = RECOVERY.next(None, RecoveryEvent.RELEASE, Actor.SECURITY_OFFICER)
        values = {
            "key": key.id,
            "request": request.id,
            "device": request.device,
            "person": request.person,
            "approved_by": principal.actor,
            "state": row.target,
            "expires_at": ends,
        }
        made = await store.insert_recovery(unit, principal.org, values)
        await store.note_recovery(
            unit, principal.org, made, 1, store.step(row, Actor.SECURITY_OFFICER, principal.actor)
        )
        facts: dict[str, Fact] = {
            "fingerprint": key.fingerprint,
            "request": str(request.id),
            "device": str(request.device),
        }
        target = Target("escrowed-key", key.id)
        unit.audit(AuditEntry(principal.org, principal.who, "escrow.recovery-approved", target, facts=facts))

    # ---------------------------------------------------------------------------------------------- to a file

    async def offer_pfx(self, principal: Principal, key: UUID) -> Offered:
        """Offer the owner a file with a key, for five minutes; an older offer of the key ends.

        Raises AuthorizationError, NoSuchEscrowedKey, FileNotAllowed, NotCertified, EscrowQuota, VaultError, StoreError.
        """
        password = Secret(new_password(_GROUPS).encode("ascii"))
        (commitment,) = await self._vault.hmac_commit(CommitPurpose.TOKEN, [_committed(password)])

        async def work(unit: Unit) -> Offered:
            found = await store.key_by_id(unit, principal.org, key)
            # Of a key that is not there, nobody is the owner, so nobody gets beyond this.
            target = CallTarget(principal.org, found.person if found is not None else None)
            await self._authorize(unit, principal, Call("EscrowService.OfferPfx"), target)
            if found is None or found.person is None:
                raise NoSuchEscrowedKey("There is no such key in the archive.")
            proof = _fresh_proof(principal, unit.now)
            await self._require_files(unit, found, proof)
            if not found.certificate:
                raise NotCertified("This key has no certificate yet.")
            if await store.count_offers(unit, found.org, unit.now - DAY, found.person) >= self._quotas.offers_of_person:
                raise EscrowQuota("As many files were offered to you as may be in a day.", DAY.total_seconds())
            for older in await store.open_offers(unit, found.org, found.id):
                await self._step(unit, principal, older, OfferEvent.SUPERSEDE)
            row = OFFER.next(None, OfferEvent.OFFER, Actor.USER)
            values = {
                "key": found.id,
                "person": found.person,
                "authentication": proof.id,
                "workstation": principal.workstation,
                "commitment": commitment,
                "attempts": 0,
                "state": row.target,
                "expires_at": unit.now + OFFER_LIFETIME,
            }
            made = await store.insert_offer(unit, found.org, values)
            await store.note_offer(unit, found.org, made, 1, store.step(row, Actor.USER, principal.actor))
            self._audit(unit, principal, found, "escrow.file-offered", made)
            return Offered(made, password, unit.now + OFFER_LIFETIME)

        return await self._database.transact(work)

    async def claim_pfx(self, principal: Principal, offer: UUID, password: Secret) -> bytes:
        """The file of an offer: PKCS #12, AES-256, opened by the password that the offer gave.

        By whom it was offered to, with the same proof and workstation, once: a claim whose answer was lost is spent.
        Raises AuthorizationError, OfferRefused, OfferExpired, OfferClaimed, FileNotAllowed, VaultError, StoreError.
        """
        # A vault that is locked or away says so here, before the offer is spent.
        (commitment,) = await self._vault.hmac_commit(CommitPurpose.TOKEN, [_committed(password)])
        key = await self._database.transact(lambda unit: self._claim(unit, principal, offer, commitment))
        if key is None:
            raise OfferRefused("The password is not the one that was shown.")
        behalf = Authorization(str(principal.actor), str(offer))
        return await self._vault.unwrap_for_pfx(key.wrapped, key.context, password, behalf)

    async def _claim(self, unit: Unit, principal: Principal, identifier: UUID, commitment: bytes) -> Archived | None:
        offer = await store.offer_by_id(unit, principal.org, identifier)
        target = CallTarget(principal.org, offer.person if offer is not None else None)
        await self._authorize(unit, principal, Call("EscrowService.ClaimPfx"), target)
        if offer is None:
            raise OfferRefused("There is no such offer.")
        proof = principal.authentication
        if proof is None or (proof.id, principal.workstation) != (offer.authentication, offer.workstation):
            raise OfferRefused("There is no such offer for this proof of who you are.")
        if offer.state is OfferState.EXPIRED or not offer.created_at <= unit.now < offer.expires_at:
            raise OfferExpired("The offer's time is over.")
        if offer.state is OfferState.VOID:
            raise OfferRefused("The offer is void after too many wrong passwords.")
        if offer.state is not OfferState.OFFERED:
            raise OfferClaimed("The file of this offer was claimed, or a newer offer took its place.")
        key = await store.key_by_id(unit, offer.org, offer.key)
        assert key is not None
        await self._require_files(unit, key, proof)
        if not hmac.compare_digest(commitment, offer.commitment):
            last = offer.attempts + 1 >= MOST_ATTEMPTS
            await self._step(unit, principal, offer, OfferEvent.EXHAUST if last else OfferEvent.MISTAKE)
            self._audit(unit, principal, key, "escrow.claim-refused", offer.id, Outcome.REFUSED)
            return None
        await self._step(unit, principal, offer, OfferEvent.CLAIM)
        await leave(unit, key, Leaving(Way.FILE, principal.who, principal.actor, offer=offer.id))
        return key

    async def _require_files(self, unit: Unit, key: Archived, proof: Authentication) -> None:
        """By the device that the key was made for, and the one that its owner proves themselves by."""
        for device in {key.device, proof.device} - {None}:
            if device is not None and not await self._rules.allows_files(unit, key.org, device):
                raise FileNotAllowed("The policy does not let keys of this card leave as files.")

    # ------------------------------------------------------------------------------------------ time and people

    async def expire(self, unit: Unit, limit: int = 100) -> int:
        """End offers and recoveries whose time is over; how many. For the timer."""
        offers = await store.lapsed_offers(unit, limit)
        for offer in offers:
            await self._step(unit, None, offer, OfferEvent.EXPIRE)
        recoveries = await store.lapsed_recoveries(unit, limit)
        for org, recovery in recoveries:
            row = RECOVERY.next(recovery.state, RecoveryEvent.EXPIRE, Actor.TIMER)
            number = await store.update_recovery(unit, recovery, {"state": row.target})
            await store.note_recovery(unit, org, recovery.id, number, store.step(row, Actor.TIMER, None))
        return len(offers) + len(recoveries)

    async def forget(self, unit: Unit, principal: Principal, person: UUID) -> None:
        """See ``people.erasure.Keeper``: remove what was offered to a person who is erased.

        Their keys stay: others may hold what was encrypted to them.
        """
        await store.delete_offers(unit, principal.org, person)

    async def _step(self, unit: Unit, principal: Principal | None, offer: PfxOffer, event: OfferEvent) -> None:
        actor = Actor.USER if principal is not None else Actor.TIMER
        row = OFFER.next(offer.state, event, actor)
        values: dict[str, Any] = {"state": row.target}
        if row.target in (OfferState.CLAIMED, OfferState.SUPERSEDED, OfferState.VOID):
            unit.beforehand(offer_event(offer, event))
        if event in (OfferEvent.MISTAKE, OfferEvent.EXHAUST):
            values["attempts"] = offer.attempts + 1
        if row.target is not OfferState.OFFERED:
            values["commitment"] = None
        number = await store.update_offer(unit, offer, values)
        who = None if principal is None else principal.actor
        await store.note_offer(unit, offer.org, offer.id, number, store.step(row, actor, who))

    @staticmethod
    def _audit(
        unit: Unit, principal: Principal, key: Archived, action: str, offer: UUID, outcome: Outcome = Outcome.DONE
    ) -> None:
        facts: dict[str, Fact] = {"fingerprint": key.fingerprint, "offer": str(offer)}
        target = Target("escrowed-key", key.id)
        unit.audit(AuditEntry(key.org, principal.who, action, target, outcome, facts))


def _committed(password: Secret) -> bytes:
    return b"escrow file\0" + password.reveal()


def _fresh_proof(principal: Principal, now: datetime) -> Authentication:
    """Raises ProofRequired."""
    proof = principal.authentication
    if proof is None or not now - FRESH <= proof.time <= now:
        raise ProofRequired("a file with a key needs the card's PIN anew", frozenset({Method.CARD}))
    return proof
