"""Going on with a session that broke off, by the proof that it ran on, where that proof cannot be given again.

A key in 9A that was begun and not heard of signs for nobody, and an emergency password is spent: without this only an
operator could end what the holder had begun. It is never more than the first proof was worth, and never for longer.
See docs/decisions/0025.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final, Protocol
from uuid import UUID

from cardwright_cardops.away import AWAY
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.records import DEFAULT, Records, fold

from ..audit.model import AuditEntry, Fact, Target
from ..authentication.errors import ProofRefused
from ..authentication.model import Authentication, Method
from ..authentication.principal import Principal, PrincipalKind
from ..store.unit import Unit
from . import store
from .errors import LineLost, SessionLost
from .model import LIVE, Agreed, CardKey, CardSession
from .ports import Task

BROKE_OFF: Final = AWAY | {LineLost.code, SessionLost.code}
"""Outcomes of sessions that nobody ended: neither the person nor a refusal."""


class Standing(Protocol):
    """Who is behind a proof that stands: ``authentication.service.AuthenticationService``."""

    async def principal_of(self, unit: Unit, principal: Principal, proof: UUID) -> Principal:
        """The person, coming through the connection of ``principal``. Raises ProofRefused."""


async def gone_on(
    unit: Unit, proofs: Standing, principal: Principal, task: Task
) -> tuple[Principal, CardSession] | None:
    """The person whose session on this card broke off at this workstation, and that session; None where it does not
    count. Whoever asks authorizes the person for what they want, as ever.

    It counts for the same workstation, device, holder and request (without one: the same purpose), while the proof
    stands and the device is in use, if the card can prove that it is the one, and the proof cannot be given again.
    """
    if principal.kind is not PrincipalKind.WORKSTATION or task.person is None or not task.in_use:
        return None
    last = await store.last_agreed(unit, task.org, task.device, task.life)
    if last is None or last.proof is None or not _is_rest_of(last, principal, task):
        return None
    records = fold((await store.records(unit, task.org, task.device, task.life)).entries)
    keys = await store.keys(unit, task.org, task.device, task.life)
    if not _can_prove_itself(task, records, keys):
        return None
    try:
        person = await proofs.principal_of(unit, principal, last.proof)
    except ProofRefused:
        return None
    proof = person.authentication
    if proof is None or proof.subject != task.person or not _is_gone(proof, records):
        return None
    return person, last.session


def _is_rest_of(last: Agreed, principal: Principal, task: Task) -> bool:
    """Whether a task is what is left of a session that nobody ended."""
    session = last.session
    if session.state not in LIVE and session.outcome not in BROKE_OFF:
        return False
    if session.request != task.request or (task.request is None and session.purpose is not task.purpose):
        return False
    return session.workstation == principal.id


def _is_gone(proof: Authentication, records: Records) -> bool:
    """Whether a proof cannot be given again."""
    by_card = Method.CARD in proof.methods and Slot.AUTHENTICATION in records.generating
    return by_card or Method.EMERGENCY_PASSWORD in proof.methods


def _can_prove_itself(task: Task, records: Records, keys: Sequence[CardKey]) -> bool:
    """Whether the card can prove which it is: by 9E, or while that is made anew too by a management key of its own."""
    if Slot.CARD_AUTHENTICATION not in records.generating:
        return any(row.slot is Slot.CARD_AUTHENTICATION for row in keys)
    known = records.management_key.names
    return not task.token and bool(known) and DEFAULT not in known


def used_again(principal: Principal, task: Task, session: UUID, before: CardSession) -> AuditEntry:
    """That the proof of an earlier session was used again; ``principal`` is the person whose it is."""
    proof = principal.authentication
    assert proof is not None
    facts: dict[str, Fact] = {
        "purpose": str(task.purpose),
        "broken": str(before.id),
        "workstation": str(principal.workstation),
        "methods": " ".join(sorted(proof.methods)),
        # As where it was proved: enough to recognize it, and nothing to call with.
        "proof": sha256(proof.id.bytes).hexdigest()[:32],
    }
    target = Target("device", task.device)
    return AuditEntry(task.org, principal.who, "session.proof-used-again", target, facts=facts, session=session)
