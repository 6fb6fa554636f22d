"""SQL of authentication's tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, delete, or_, select, update

from ..store.authentication_tables import (
    attempt_counter,
    first_credential,
    given_password,
    proof,
    security_answer,
    security_question,
)
from ..store.unit import Unit
from .machine import MethodState
from .model import Authentication, Method


async def counter(unit: Unit, org: UUID, subject: UUID, method: Method) -> Row[Any] | None:
    """The counter of a subject's method."""
    return await unit.row(
        select(attempt_counter).where(
            attempt_counter.c.org == org, attempt_counter.c.subject == subject, attempt_counter.c.method == method
        )
    )


async def insert_counter(
    unit: Unit,
    org: UUID,
    subject: UUID,
    method: Method,
    state: MethodState,
    *,
    attempts: int = 1,
    idle_at: datetime | None,
) -> None:
    """Begin to count."""
    values = {
        "org": org,
        "subject": subject,
        "method": method,
        "state": state,
        "attempts": attempts,
        "window_began_at": unit.now,
        "idle_at": idle_at,
    }
    await unit.insert(attempt_counter, values)


async def update_counter(unit: Unit, identifier: UUID, version: int, values: Mapping[str, Any]) -> None:
    """Change a counter. Raises StaleVersion."""
    await unit.update(attempt_counter, identifier, version, values)


async def put_password(unit: Unit, values: Mapping[str, Any]) -> UUID | None:
    """Give a person a password, in place of one by the same method, whose id it gives."""
    gone = await forget_password(unit, values["org"], values["person"], values["method"])
    await unit.insert(given_password, values)
    return gone


async def forget_password(unit: Unit, org: UUID, person: UUID, method: Method) -> UUID | None:
    """Remove a given password; its id, if there was one."""
    gone: UUID | None = await unit.value(
        delete(given_password)
        .where(given_password.c.org == org, given_password.c.person == person, given_password.c.method == method)
        .returning(given_password.c.id)
    )
    return gone


async def delete_password(unit: Unit, org: UUID, identifier: UUID) -> bool:
    """Remove a given password by its id; whether it was there."""
    wanted = (given_password.c.id == identifier, given_password.c.org == org)
    return (await unit.execute(delete(given_password).where(*wanted))).rowcount > 0


async def password(unit: Unit, org: UUID, person: UUID, method: Method) -> Row[Any] | None:
    """A given password that counts now."""
    return await unit.row(
        select(given_password).where(
            given_password.c.org == org,
            given_password.c.person == person,
            given_password.c.method == method,
            given_password.c.expires_at > unit.time,
            or_(given_password.c.used_at.is_(None), given_password.c.single_use.is_(False)),
        )
    )


async def use_password(unit: Unit, identifier: UUID) -> bool:
    """Spend a password; False if it is gone, over, or spent already."""
    spent = await unit.execute(
        update(given_password)
        .where(
            given_password.c.id == identifier,
            given_password.c.expires_at > unit.time,
            or_(given_password.c.used_at.is_(None), given_password.c.single_use.is_(False)),
        )
        .values(used_at=unit.time, version=given_password.c.version + 1, changed_at=unit.time)
    )
    return spent.rowcount == 1


async def questions(unit: Unit, org: UUID) -> Sequence[Row[Any]]:
    """(id, text) of the active questions, in order."""
    return await unit.rows(
        select(security_question.c.id, security_question.c.text)
        .where(security_question.c.org == org, security_question.c.active.is_(True))
        .order_by(security_question.c.place)
    )


async def retire_questions(unit: Unit, org: UUID, kept: Iterable[UUID]) -> None:
    """Ask all but some no more."""
    await unit.execute(
        update(security_question)
        .where(security_question.c.org == org, security_question.c.id.not_in(list(kept)))
        .values(active=False, version=security_question.c.version + 1, changed_at=unit.time)
    )


async def place_question(unit: Unit, identifier: UUID, place: int) -> None:
    """Move a question."""
    await unit.execute(
        update(security_question)
        .where(security_question.c.id == identifier)
        .values(place=place, version=security_question.c.version + 1, changed_at=unit.time)
    )


async def insert_question(unit: Unit, org: UUID, text: str, place: int) -> UUID:
    """Ask something new."""
    return await unit.insert(security_question, {"org": org, "text": text, "place": place, "active": True})


async def answers(unit: Unit, org: UUID, person: UUID) -> dict[UUID, str]:
    """Hashes of a person's answers, by question."""
    rows = await unit.rows(
        select(security_answer.c.question, security_answer.c.hash).where(
            security_answer.c.org == org, security_answer.c.person == person
        )
    )
    return {row.question: row.hash for row in rows}


async def put_answers(unit: Unit, org: UUID, person: UUID, hashes: Mapping[UUID, str]) -> None:
    """Replace all answers of a person."""
    await unit.execute(delete(security_answer).where(security_answer.c.org == org, security_answer.c.person == person))
    rows = [{"org": org, "person": person, "question": question, "hash": text} for question, text in hashes.items()]
    await unit.insert_many(security_answer, rows)


async def delete_answers(unit: Unit, org: UUID, person: UUID, before: datetime) -> bool:
    """Remove the answers that a person gave before a moment; whether there were any."""
    wanted = (security_answer.c.org == org, security_answer.c.person == person, security_answer.c.created_at < before)
    return (await unit.execute(delete(security_answer).where(*wanted))).rowcount > 0


async def insert_proof(unit: Unit, made: Authentication) -> None:
    """Keep a proof."""
    values = {
        "id": made.id,
        "org": made.org,
        "subject": made.subject,
        "methods": " ".join(sorted(made.methods)),
        "created_at": made.time,
        "expires_at": made.expires_at,
        "network": made.network,
        "device": made.device,
        "request": made.request,
    }
    await unit.insert(proof, values)


async def proof_by_id(unit: Unit, org: UUID, identifier: UUID) -> Authentication | None:
    """A proof that still counts."""
    row = await unit.row(
        select(proof).where(
            proof.c.id == identifier, proof.c.org == org, proof.c.ended_at.is_(None), proof.c.expires_at > unit.time
        )
    )
    if row is None:
        return None
    return Authentication(
        id=row.id,
        org=row.org,
        subject=row.subject,
        methods=frozenset(Method(name) for name in row.methods.split()),
        time=row.created_at,
        expires_at=row.expires_at,
        network=row.network,
        device=row.device,
        request=row.request,
    )


async def proof_stands(unit: Unit, identifier: UUID) -> bool:
    """Whether a proof is neither ended nor expired."""
    found = select(proof.c.id).where(
        proof.c.id == identifier, proof.c.ended_at.is_(None), proof.c.expires_at > unit.time
    )
    return await unit.value(found) is not None


async def end_proofs(unit: Unit, org: UUID, subject: UUID, identifier: UUID | None = None) -> int:
    """End one proof of a subject, or all; how many stood."""
    statement = update(proof).where(proof.c.org == org, proof.c.subject == subject, proof.c.ended_at.is_(None))
    if identifier is not None:
        statement = statement.where(proof.c.id == identifier)
    ended = await unit.execute(statement.values(ended_at=unit.time, version=proof.c.version + 1, changed_at=unit.time))
    return ended.rowcount


async def end_every_proof(unit: Unit) -> int:
    """End all proofs of everybody; how many stood."""
    standing = (proof.c.ended_at.is_(None), proof.c.expires_at > unit.time)
    ended = await unit.execute(
        update(proof).where(*standing).values(ended_at=unit.time, version=proof.c.version + 1, changed_at=unit.time)
    )
    return ended.rowcount


async def forget_person(unit: Unit, org: UUID, person: UUID) -> bool:
    """Remove everything kept of a person who is erased; whether there was anything."""
    gone = (
        delete(security_answer).where(security_answer.c.org == org, security_answer.c.person == person),
        delete(given_password).where(given_password.c.org == org, given_password.c.person == person),
        delete(proof).where(proof.c.org == org, proof.c.subject == person),
        delete(attempt_counter).where(attempt_counter.c.org == org, attempt_counter.c.subject == person),
    )
    return sum([(await unit.execute(one)).rowcount for one in gone]) > 0


async def insert_first_credential(unit: Unit, org: UUID, digest: bytes, expires_at: datetime) -> bool:
    """Keep the credential of ``init``; False if the organization ever had one."""
    values = {"org": org, "hash": digest, "expires_at": expires_at}
    return await unit.insert_if_absent(first_credential, values, ["org"]) is not None


async def first_credential_by_hash(unit: Unit, digest: bytes) -> Row[Any] | None:
    """The credential of ``init``, in whatever state."""
    return await unit.row(select(first_credential).where(first_credential.c.hash == digest))


async def first_credential_of(unit: Unit, org: UUID) -> Row[Any] | None:
    """The credential of ``init`` of an organization, in whatever state."""
    return await unit.row(select(first_credential).where(first_credential.c.org == org))


async def replace_first_credential(unit: Unit, org: UUID, digest: bytes, expires_at: datetime) -> bool:
    """A new credential in place of one that is not spent; False if there is none such. Who is enrolled stays so."""
    changed = await unit.execute(
        update(first_credential)
        .where(first_credential.c.org == org, first_credential.c.closed_at.is_(None))
        .values(
            hash=digest,
            expires_at=expires_at,
            version=first_credential.c.version + 1,
            changed_at=unit.time,
        )
    )
    return changed.rowcount == 1


async def update_first_credential(unit: Unit, identifier: UUID, version: int, values: Mapping[str, Any]) -> None:
    """Change the credential of ``init``. Raises StaleVersion."""
    await unit.update(first_credential, identifier, version, values)


class StoredProofs:
    """``authorize.Proofs`` from the table; no state."""

    async def stands(self, unit: Unit, authentication: UUID) -> bool:
        """See ``authorize.Proofs``: one statement."""
        return await proof_stands(unit, authentication)
