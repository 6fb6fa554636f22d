"""What persons proved themselves with, and must not any more, on the second medium (S11).

Passwords that were used or replaced, answers that were replaced or reset, the credential of the first operators. No
secret and no hash of one that persons chose is written: each is named by its id.
"""

from __future__ import annotations

from uuid import UUID

from ..people.journal import erased
from ..store.second_medium import JournalEvent, JournalKind, Remembered, Settled
from ..store.unit import Unit
from . import store

_PASSWORD = "given-password"
_ANSWERS = "security-answers"
_FIRST = "first-credential"


def password_event(org: UUID, password: UUID) -> JournalEvent:
    """Of a given password that is about to be used up, replaced or made void."""
    return JournalEvent(JournalKind.TOKEN_USE, org, password, {"token": _PASSWORD})


def answers_event(org: UUID, person: UUID) -> JournalEvent:
    """Of a person's answers that are about to be replaced or removed."""
    return JournalEvent(JournalKind.TOKEN_USE, org, person, {"token": _ANSWERS})


def first_event(org: UUID, credential: UUID, digest: bytes, column: str) -> JournalEvent:
    """Of the credential of the first operators, which is about to make one: whom ``column`` of its row names.

    "" for one that was not used, and is about to be replaced. ``digest``: SHA-256 of 128 random bits.
    """
    data = {"token": _FIRST, "digest": digest.hex(), "made": column}
    return JournalEvent(JournalKind.TOKEN_USE, org, credential, data)


async def replay(unit: Unit, remembered: Remembered) -> bool:
    """Make void what a restored database would honour again. Gives whether there was anything to do.

    The credential of the first operators ends with it, if the one it made is not in this database; the host's own
    ``init`` gives another. Events of other domains, and those that took no effect, are passed over. All of them may be
    replayed again. Raises StaleVersion.
    """
    event = remembered.event
    if (person := erased(remembered)) is not None:
        return await store.forget_person(unit, event.org, person)
    if event.kind is not JournalKind.TOKEN_USE or remembered.settled is Settled.ABANDONED:
        return False
    match event.data["token"]:
        case token if token == _PASSWORD:
            return await store.delete_password(unit, event.org, event.subject)
        case token if token == _ANSWERS:
            return await store.delete_answers(unit, event.org, event.subject, remembered.at)
        case token if token == _FIRST:
            return await _end_first(unit, remembered)
    return False


async def end_proofs(unit: Unit) -> int:
    """End every proof, after a restore: which were ended meanwhile is not known. Gives how many stood."""
    return await store.end_every_proof(unit)


async def _end_first(unit: Unit, remembered: Remembered) -> bool:
    data = remembered.event.data
    row, made = await store.first_credential_by_hash(unit, bytes.fromhex(str(data["digest"]))), str(data["made"])
    if row is None or row.expires_at <= remembered.at or (made and row._mapping[made] is not None):
        return False
    await store.update_first_credential(unit, row.id, row.version, {"expires_at": remembered.at})
    return True
