"""The holder of an issued card proves who they are: entity authentication by the key in 9A (FIPS 196, RFC 3163)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import UUID

from cardwright_cardops.piv import commands
from cardwright_cardops.piv.algorithms import Algorithm, PublicKey
from cardwright_cardops.piv.proofs import ProofInvalid, verify
from cardwright_cardops.program.items import Apdu, Batch, Group, Outcome, SignIn, VerifyPin

from ..authentication.authorize import Authorize, CallTarget
from ..authentication.matrix import Call
from ..authentication.model import Authentication, Method
from ..authentication.principal import Principal
from ..store.ids import new_id
from ..store.unit import Database, Unit
from .errors import CardNotProven, PeerTooOld
from .model import Greeting
from .ports import Line

STAGE: Final = "sign-in"
_KIND: Final = "sign_in"


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose an issued card is, and which keys prove it."""

    device: UUID
    person: UUID
    keys: tuple[PublicKey, ...]


class Holders(Protocol):
    """Who holds which card."""

    async def holder(self, unit: Unit, org: UUID, guid: UUID) -> Holder | None:
        """The holder of a card that is in use now; None for any other card."""


class Proofs(Protocol):
    """Where proofs are recorded: ``authentication.service.AuthenticationService``."""

    async def put_proof(
        self,
        unit: Unit,
        principal: Principal,
        person: UUID,
        methods: frozenset[Method],
        *,
        device: UUID | None = None,
        request: UUID | None = None,
    ) -> Authentication:
        """Record a proof that another domain judged."""


def audience_of(org: UUID) -> str:
    """Whom a card signs in to: this server, for one organization."""
    return f"urn:cardwright:server:{org}"


class CardProofs:
    """Judges proofs. Stateless."""

    def __init__(self, database: Database, authorize: Authorize, holders: Holders, proofs: Proofs) -> None:
        self._database = database
        self._authorize = authorize
        self._holders = holders
        self._proofs = proofs

    async def prove(self, principal: Principal, greeting: Greeting, line: Line) -> UUID:
        """Have the card sign a fresh nonce behind its PIN; the id of the proof that it is worth.

        A card that is not ours, not in use or without a certificate that counts is told from a wrong proof by nothing
        but that it is asked for no PIN. Raises AuthorizationError, CardNotProven, PeerTooOld, LineLost, StoreError.
        """
        guid = greeting.card.identity.guid

        async def find(unit: Unit) -> Holder | None:
            await self._authorize(unit, principal, Call("SessionService.Run/prove"), CallTarget(principal.org))
            return None if guid is None else await self._holders.holder(unit, principal.org, guid)

        found = await self._database.read(find)
        if found is None or not found.keys or guid is None:
            raise CardNotProven("This card does not prove who holds it.")
        if _KIND not in greeting.items:
            raise PeerTooOld(f"The workstation does not know {_KIND}.")
        await line.greet(new_id())
        algorithm = Algorithm.of(found.keys[0])
        nonce, audience = os.urandom(32), audience_of(principal.org)
        items = (VerifyPin(), SignIn(algorithm, audience, nonce))
        batch = Batch((Group((Apdu(commands.select()),), essential=True), Group(items, essential=True)), STAGE)
        try:
            _, (_, answer) = await line.execute(batch)
        finally:
            await line.end_stage()
        if answer.outcome is not Outcome.ANSWERED or not answer.ok:
            answer.require("signing in with the key of slot 9A")
            raise CardNotProven("The card did not answer.")
        key = _signer(answer.data, audience, nonce, [one for one in found.keys if Algorithm.of(one) is algorithm])

        async def record(unit: Unit) -> UUID:
            # Between the question and the answer the card may have been suspended, or its certificate revoked.
            now = await self._holders.holder(unit, principal.org, guid)
            if now is None or now.device != found.device or key not in now.keys:
                raise CardNotProven("This card does not prove who holds it any more.")
            made = await self._proofs.put_proof(
                unit, principal, now.person, frozenset({Method.CARD}), device=now.device
            )
            return made.id

        return await self._database.transact(record)


def _signer(proof: bytes, audience: str, nonce: bytes, keys: Sequence[PublicKey]) -> PublicKey:
    """The key that made a proof. Raises CardNotProven where none of them did."""
    wrong: ProofInvalid | None = None
    for key in keys:
        try:
            verify(proof, audience=audience, nonce=nonce, key=key)
        except ProofInvalid as error:
            wrong = error
        else:
            return key
    raise CardNotProven("The card did not prove that it holds the key it was issued with.") from wrong
