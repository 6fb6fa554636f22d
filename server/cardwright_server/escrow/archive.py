"""The archive as card sessions use it: keys are made, kept, bound to certificates, and given for cards."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from uuid import UUID

from cryptography.hazmat.primitives.serialization import load_der_private_key

from cardwright_cardops.piv.algorithms import Algorithm, PrivateKey
from cardwright_cardops.piv.references import Slot

from ..audit.model import SERVER, AuditEntry, Target
from ..issuance.model import key_fingerprint
from ..machine import Actor
from ..sessions.model import Purpose
from ..sessions.ports import Also, Task
from ..store.errors import StaleVersion
from ..store.ids import new_id
from ..store.unit import Database, Unit
from ..vault.model import Authorization, EscrowAlgorithm, EscrowClass, EscrowedKey
from ..vault.protocol import Vault
from . import store
from .errors import EscrowedKeyRefused, NoSuchEscrowedKey, NotEscrowable, RecoveryNotAllowed
from .journal import archive_event
from .model import CARRIED_OUT, MOST_RECOVERED, RECOVERY, Archived, Recovery, RecoveryEvent, Requests, Way
from .record import Leaving, add_key, leave, supersede

_BINDINGS = 5


class EscrowArchive:
    """``Escrow`` of card sessions. Holds nothing between calls."""

    def __init__(self, database: Database, vault: Vault, requests: Requests) -> None:
        self._database = database
        self._vault = vault
        self._requests = requests

    async def key(
        self,
        task: Task,
        session: UUID,
        slot: Slot,
        algorithm: Algorithm,
        fingerprint: str,
        sent: Set[str] | None = None,
    ) -> PrivateKey:
        """See ``Escrow``. A session that asks again for the same slot gets the same key.

        A new key and every key that leaves are recorded and committed, on the second medium too, before this returns.
        Raises NotEscrowable, NoSuchEscrowedKey, EscrowedKeyRefused, VaultError, StoreError.
        """
        if not fingerprint and sent is not None:
            fingerprint = await self._unsent(task, slot, algorithm, sent)
        if fingerprint:
            found = await self._database.transact(
                lambda unit: self._given(unit, task, session, slot, algorithm, fingerprint)
            )
        else:
            found = await self._made(task, session, slot, algorithm)
        # The session's own caller is not known here; the vault counts by owner, and in total.
        behalf = Authorization(found.owner, str(task.request or session), str(session))
        secret = await self._vault.unwrap_for_card(found.wrapped, found.context, behalf)
        # Of our own vault, which authenticated what it opened: testing the primes again takes 0.1 s, for every session.
        key = load_der_private_key(secret.reveal(), None, unsafe_skip_rsa_key_validation=True)
        assert isinstance(key, PrivateKey)
        return key

    async def bind_certificate(
        self, org: UUID, fingerprint: str, certificate: bytes, also: Also | None = None
    ) -> Archived:
        """Bind an archived key to its certificate (DER), in place of an older one; the same again changes nothing.

        With ``also`` it is written by the caller's next commit, and the key is given as it was.
        Raises NoSuchEscrowedKey, VaultError (VaultRefused if it is for another key), StoreError.
        """
        for left in reversed(range(_BINDINGS)):
            found = await self.archived(org, fingerprint)
            if found.certificate == certificate:
                return found
            wrapped = await self._vault.bind_certificate(found.wrapped, found.context, certificate)
            values = {"master": wrapped.version, "wrapped": wrapped.data, "certificate": certificate}

            async def bind(unit: Unit, found: Archived = found, values: dict[str, object] = values) -> Archived:
                await store.update_key(unit, found, {**values, "certified_at": unit.now, "superseded_at": None})
                bound = await _found(unit, org, fingerprint)
                unit.beforehand(archive_event(bound))
                target = Target("escrowed-key", bound.id)
                unit.audit(AuditEntry(org, SERVER, "escrow.certified", target, facts={"fingerprint": fingerprint}))
                await supersede(unit, org, bound.id)
                return await _found(unit, org, fingerprint)

            if also is not None:
                also(bind)
                return found
            try:
                return await self._database.transact(bind)
            except StaleVersion:
                # It was given out, or bound, at the same time; what was sealed before may be of an older certificate.
                if not left:
                    raise
        raise AssertionError("the loop ends by return or raise")

    async def history(self, unit: Unit, org: UUID, person: UUID) -> tuple[Archived, ...]:
        """Every key of a person to which something may have been encrypted, newest first: those with certificates."""
        return tuple(await store.certified_of(unit, org, person))

    async def recoverable(self, unit: Unit, task: Task, replaced: Set[str] = frozenset()) -> tuple[Archived, ...]:
        """Keys that the card of a task should carry in retired slots, newest first, at most as many as there are slots.

        A card that is issued gets all keys of its holder; one that is updated its own former keys, and those whose
        recovery to it was approved. Not the key that is in use in its slot, unless ``replaced`` has its fingerprint:
        the plan puts a new one there. ``Archived.recovered`` is what ``DevicePolicy.recovered`` wants.
        """
        if task.person is None:
            return ()
        approved = await self._approved(unit, task)
        wanted = []
        for key in await store.certified_of(unit, task.org, task.person):
            here = (key.device, key.life) == (task.device, task.life)
            if here and key.current and key.fingerprint not in replaced:
                continue
            if here or (_may_have(task) and (_goes_along(task, key) or key.id in approved)):
                stays = here and key.id not in approved and task.policy.old_keys_may_leave
                wanted.append(replace(key, may_stay=stays))
        return tuple(wanted[:MOST_RECOVERED])

    async def archived(self, org: UUID, fingerprint: str) -> Archived:
        """One key by its fingerprint. Raises NoSuchEscrowedKey."""
        return await self._database.glance(lambda unit: _found(unit, org, fingerprint))

    # ------------------------------------------------------------------------------------------------- new keys

    async def _unsent(self, task: Task, slot: Slot, algorithm: Algorithm, sent: Set[str]) -> str:
        """Fingerprint of a key that an earlier session made for the slot and never sent; "" for none.

        A second one would leave the first an old key of the card, which it is not: the card never had it.
        """
        device, life = task.device, task.life
        found = await self._database.glance(
            lambda unit: store.newest_of_slot(unit, task.org, device, life, slot, algorithm, sent)
        )
        return "" if found is None or found.person != task.person else found.fingerprint

    async def _made(self, task: Task, session: UUID, slot: Slot, algorithm: Algorithm) -> Archived:
        known = await self._database.glance(lambda unit: store.key_of_session(unit, task.org, session, slot))
        if known is None:
            try:
                wanted = EscrowAlgorithm(algorithm.label)
            except ValueError:
                raise NotEscrowable(f"Keys of {algorithm.label} are not archived.") from None
            owner = str(task.person or task.device)
            # Until the commit below this key exists nowhere else, and nobody misses it if that never comes.
            made = await self._vault.generate_keypair_for_escrow(wanted, str(task.org), owner)
            known = await self._database.transact(
                lambda unit: self._archived(unit, task, session, slot, algorithm, owner, made)
            )
        if (known.device, known.algorithm) != (task.device, algorithm):
            raise EscrowedKeyRefused("This session made another kind of key for this slot.")
        return known

    async def _archived(
        self,
        unit: Unit,
        task: Task,
        session: UUID,
        slot: Slot,
        algorithm: Algorithm,
        owner: str,
        made: EscrowedKey,
    ) -> Archived:
        values = {
            "id": new_id(),
            "person": task.person,
            "device": task.device,
            "life": task.life,
            "slot": int(slot),
            "session": session,
            "algorithm": algorithm.label,
            "fingerprint": key_fingerprint(made.public_key),
            "public_key": made.public_key,
            "owner": owner,
            "escrow_class": EscrowClass.VAULT.value,
            "master": made.wrapped.version,
            "wrapped": made.wrapped.data,
            "certificate": None,
            "certified_at": None,
            "superseded_at": None,
        }
        added = await add_key(unit, task.org, values)
        key = await store.key_of_session(unit, task.org, session, slot)
        assert key is not None
        if added is not None:
            unit.beforehand(archive_event(key))
            await leave(unit, key, _to(task, session, slot, Way.CARD), new=True)
        return key

    # ------------------------------------------------------------------------------------------------- old keys

    async def _given(
        self, unit: Unit, task: Task, session: UUID, slot: Slot, algorithm: Algorithm, fingerprint: str
    ) -> Archived:
        key = await _found(unit, task.org, fingerprint)
        if key.person != task.person or (task.person is None and key.device != task.device):
            raise EscrowedKeyRefused("This key belongs to someone else than this card.")
        if key.algorithm is not algorithm:
            raise EscrowedKeyRefused("The archived key is of another algorithm.")
        here = (key.device, key.life) == (task.device, task.life)
        if here and slot is key.slot:
            await leave(unit, key, _to(task, session, slot, Way.CARD))
            return key
        if not slot.is_retired or not key.certificate:
            raise EscrowedKeyRefused("Only keys that had a certificate are recovered, and only to retired slots.")
        if not here and not _may_have(task):
            raise RecoveryNotAllowed("The policy gives no old keys to a temporary card.")
        recovery = None
        if not here and not _goes_along(task, key):
            recovery = (await self._approved(unit, task)).get(key.id)
            if recovery is None:
                raise EscrowedKeyRefused("Nobody approved that this key goes to this card.")
        new = await leave(unit, key, _to(task, session, slot, Way.RETIRED))
        if new and recovery is not None:
            row = RECOVERY.next(recovery.state, RecoveryEvent.DELIVER, Actor.SERVER)
            number = await store.update_recovery(unit, recovery, {"state": row.target})
            await store.note_recovery(unit, task.org, recovery.id, number, store.step(row, Actor.SERVER, None, session))
        return key

    async def _approved(self, unit: Unit, task: Task) -> dict[UUID, Recovery]:
        """Recoveries to the card, by key: in time, and of requests that nobody took back."""
        found = await store.open_recoveries(unit, task.org, task.device)
        open_ones = {
            request
            for request in {one.request for one in found}
            if (await self._requests.request(unit, task.org, request)).state in CARRIED_OUT
        }
        return {one.key: one for one in found if one.request in open_ones}


def _may_have(task: Task) -> bool:
    """Whether the card may get its holder's keys of other cards."""
    return not task.temporary or task.policy.recovers_to_temporary


def _goes_along(task: Task, key: Archived) -> bool:
    """Whether a key needs no approval: it comes with a card that its owner is issued, in a session authorized for it.

    A temporary card is issued, too, if the policy allows it: without old keys its holder could read nothing until the
    lost one is back.
    """
    return task.purpose is Purpose.ISSUE and key.person == task.person


def _to(task: Task, session: UUID, slot: Slot, way: Way) -> Leaving:
    return Leaving(way, request=task.request, device=task.device, session=session, slot=slot)


async def _found(unit: Unit, org: UUID, fingerprint: str) -> Archived:
    found = await store.key_by_fingerprint(unit, org, fingerprint)
    if found is None:
        raise NoSuchEscrowedKey("There is no such key in the archive.")
    return found
